"""Leaving in a hurry: a conversation that nobody saved is saved first, and the screen says that work is stopping."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pexpect
import pytest

if not hasattr(pexpect, "spawn"):
    pytest.skip("needs a pseudo-terminal", allow_module_level=True)

from lacewing.chat.terminal.progress import INTERVAL, STOPPING, Bars
from tests.chat.terminal.emulator import Emulator
from tests.chat.terminal.terminal import CTRL_C, CTRL_D, DEAF, PATIENCE, Chat

WORDS = ("--backend", "reference", "--temperature", "0", "--max-tokens", "8")


def rescued(folder):
    """The messages of the only session that is there."""
    (path,) = folder.glob("sessions/*.json")
    assert path.name.startswith("autosave-")
    return [each["content"] for each in json.loads(path.read_text())["messages"] if each["role"] == "user"]


def chat_in(folder, model, program=None):
    return Chat(folder, model, *WORDS, program=program, LACEWING_SESSIONS=str(folder / "sessions"))


def interrupt_slow_work(chat, model):
    """Ctrl-C in a command that does not look for one at once."""
    chat.ready()
    chat.turn("Hello")
    chat.send(f"/model {model} --context 100")
    chat.expect("slow work begins")
    chat.press(CTRL_C)


def test_a_second_ctrl_c_saves(tiny_path, tmp_path):
    with chat_in(tmp_path, tiny_path, DEAF.format(hundredths=6000)) as chat:
        interrupt_slow_work(chat, tiny_path)
        chat.expect("Ctrl-C again leaves")
        chat.press(CTRL_C)
        chat.expect("/load autosave-")
        assert chat.leave() == 130
    assert rescued(tmp_path) == ["Hello"]


def test_who_presses_again_at_once_stays(tiny_path, tmp_path):
    """The work does not look for a second; nobody has been told yet that another Ctrl-C leaves."""
    with chat_in(tmp_path, tiny_path, DEAF.format(hundredths=100)) as chat:
        interrupt_slow_work(chat, tiny_path)
        chat.expect("stopping")
        chat.press(CTRL_C)
        assert "cancelled; nothing was changed" in chat.ready()
        chat.turn("/save mine")
        chat.press(CTRL_D)
        assert chat.leave() == 0
    assert [path.name for path in tmp_path.glob("sessions/*")] == ["mine.json"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_being_ended_saves(number, tiny_path, tmp_path):
    with chat_in(tmp_path, tiny_path) as chat:
        chat.ready()
        chat.turn("Hello")
        chat.process.kill(number)
        assert chat.leave() == 128 + number
    assert rescued(tmp_path) == ["Hello"]


def test_a_terminal_that_closes_saves(tiny_path, tmp_path):
    chat = chat_in(tmp_path, tiny_path)
    with chat:
        chat.ready()
        chat.turn("Hello")
        chat.process.close(force=False)
    until(lambda: list(tmp_path.glob("sessions/*.json")))
    assert rescued(tmp_path) == ["Hello"]


def test_what_is_saved_is_not_saved_again_and_what_is_left_is_kept(tiny_path, tmp_path):
    with chat_in(tmp_path, tiny_path) as chat:
        chat.ready()
        chat.turn("Hello")
        chat.turn("/save mine")
        chat.process.kill(signal.SIGTERM)
        assert chat.leave() == 128 + signal.SIGTERM
    with chat_in(tmp_path, tiny_path) as chat:
        chat.ready()
        chat.turn("Hello")
        chat.press(CTRL_D)
        assert chat.leave() == 0
        assert "lacewing chat --resume continues it" in chat.process.before
    first, second = sorted(path.name for path in tmp_path.glob("sessions/*"))
    assert first.startswith("last-") and second == "mine.json"
    with chat_in(tmp_path, "--resume") as chat:
        assert "You: Hello" in chat.ready()
        chat.press(CTRL_D)
        assert chat.leave() == 0


def test_nobody_reads_the_pipe(tiny_path, tmp_path):
    """What comes after is not worked through for nobody."""
    code = "import sys, lacewing.cli; lacewing.cli.main()"
    words = [sys.executable, "-c", code, "chat", str(tiny_path), *WORDS]
    environment = {**os.environ, "LACEWING_SESSIONS": str(tmp_path / "sessions")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment}
    with subprocess.Popen(words, **pipes, text=True) as process:
        process.stdin.write("Hello\n/max-tokens\n")
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write("and more\n" * 50)
        process.stdin.flush()
        assert process.wait(PATIENCE) == 1  # while its input is still open
        assert "Traceback" not in process.stderr.read()
    assert "Hello" in rescued(tmp_path)


def until(true):
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_stopping_is_told_without_progress():
    """Work that tells nothing is said to be stopping; what others write meanwhile stays whole."""
    screen = Emulator()
    bars, pressed = Bars(screen), threading.Event()
    bars.watch(pressed.is_set)
    pressed.set()
    until(lambda: screen.text == STOPPING)
    with bars.paused():
        screen.write("text\n")
        time.sleep(3 * INTERVAL)
        assert screen.text == "text"
        with bars.resumed():
            until(lambda: screen.text == f"text\n{STOPPING}")
        screen.write("more\n")
    bars.unwatch()
    assert screen.text == "text\nmore"
