"""The command, in this process and in one of its own, and a web server."""

import subprocess
import sys

import pytest

from lacewing.cli import main
from lacewing.console.output import NORMAL, set_level
from tests.hub.test_remote import server  # noqa: F401  # a fixture


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch, tmp_path_factory):
    """What this user has configured is not tested, and what a command sets for its process ends with the test."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    yield
    set_level(NORMAL)


@pytest.fixture
def lacewing(monkeypatch, capsys):
    """Runs the command in this process: (exit code, standard output, standard error)."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["lacewing", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return call


@pytest.fixture
def start():
    """Starts the command in a process of its own, ended after the test."""
    started = []

    def begin(*words, **options):
        command = [sys.executable, "-m", "lacewing", *map(str, words)]
        started.append(subprocess.Popen(command, text=True, stdin=-1, stdout=-1, stderr=-1, **options))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None and not stream.closed:
                stream.close()
