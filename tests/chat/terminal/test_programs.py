"""The editor and the clipboard: what can be known about them is said, and nothing else."""

import base64
import io
import os
import stat
import sys

import pytest

from lacewing.chat.terminal import programs
from lacewing.errors import OptionError

if os.name == "nt":
    pytest.skip("runs scripts", allow_module_level=True)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "TMUX", "VISUAL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.parametrize(
    ("program", "result"),
    [
        ("exit 0", None),
        ("echo >> $1", None),  # the last line's end, as many editors write it
        ("printf ' more' >> $1", "text more"),
        ("printf ' more' >> $1; exit 1", OptionError),
        ("exit 1", OptionError),
    ],
)
def test_an_editor(program, result, folder, monkeypatch):
    monkeypatch.setenv("EDITOR", script(folder / "ed", program))
    if result is OptionError:
        with pytest.raises(OptionError, match="ended with code 1; nothing was changed or sent"):
            programs.edit("text")
    else:
        assert programs.edit("text") == result


def test_an_editor_that_is_not_there(folder, monkeypatch):
    monkeypatch.setenv("EDITOR", "no-such-editor")
    with pytest.raises(OptionError, match="cannot be started"):
        programs.edit("text")


def test_a_program_takes_it(folder, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    script(folder / "xclip", f"cat > {folder}/taken")
    terminal = io.StringIO()
    assert programs.copy("text", terminal) == "" and terminal.getvalue() == ""
    assert (folder / "taken").read_text() == "text"


def test_tmux_takes_it(folder, monkeypatch):
    monkeypatch.setenv("TMUX", "1")
    script(folder / "tmux", f"cat > {folder}/taken")
    assert "tmux has it" in programs.copy("text", io.StringIO()) and (folder / "taken").read_text() == "text"
    script(folder / "tmux", "exit 1")
    assert "does not tell" in programs.copy("text", io.StringIO())


def test_a_terminal_is_asked_and_does_not_tell(folder, monkeypatch):
    terminal = io.StringIO()
    assert "does not tell whether it did" in programs.copy("text", terminal)
    assert terminal.getvalue() == f"\x1b]52;c;{base64.b64encode(b'text').decode()}\x07"
    with pytest.raises(OptionError, match=r"too long.*nothing was copied"):
        programs.copy("x" * 60_000, terminal)
    monkeypatch.setenv("TERM", "linux")
    with pytest.raises(OptionError, match="no clipboard; nothing was copied"):
        programs.copy("text", terminal)
