"""A terminal that gets another width while an answer comes: in tmux, which wraps its lines anew, nothing is there twice."""

import re
import shutil
import subprocess
import sys
import time

import pytest

if shutil.which("tmux") is None:
    pytest.skip("needs tmux", allow_module_level=True)

# Streams an answer; a file says how much of it may come.
STREAM = """
import pathlib, sys, time
from rich.console import Console
from lacewing.chat.session.events import Delta, Finished
from lacewing.chat.terminal.answer import AnswerView
allowed, text = pathlib.Path(sys.argv[1]), {text!r}
def events():
    at = 0
    while at < len(text):
        if at >= int(allowed.read_text() or 0):
            time.sleep(0.01)
            yield Delta("")
        else:
            yield Delta(text[at : at + 8])
            at += 8
    yield Finished("stop")
print("before")
AnswerView(Console(highlight=False)).show(events())
print("END", flush=True)
time.sleep(600)
"""
WORDS = " ".join(f"word{n}" for n in range(120))
LIST = "\n".join(f"- item{n} {'x' * 20} filler and more text" for n in range(24))
TABLE = "| name | about |\n|---|---|\n" + "\n".join(f"| row{n} | {'some words ' * 4}|" for n in range(8))


class Tmux:
    def __init__(self, folder, program, width, height):
        self.base = ["tmux", "-S", str(folder / "socket"), "-f", "/dev/null"]
        (folder / "program.py").write_text(program)
        (folder / "allowed").write_text("0")
        command = f"env -u COLUMNS -u LINES {sys.executable} {folder / 'program.py'} {folder / 'allowed'}"
        self.call("new-session", "-d", "-x", str(width), "-y", str(height), command)

    def call(self, *words):
        return subprocess.run([*self.base, *words], capture_output=True, text=True, check=True, timeout=60).stdout

    def text(self):
        return self.call("capture-pane", "-p", "-S", "-").rstrip()

    def wait(self, pattern):
        end = time.monotonic() + 60
        while not re.search(pattern, re.sub(r"\s", "", self.text())):
            assert time.monotonic() < end, self.text()
            time.sleep(0.05)


@pytest.mark.parametrize(("text", "word"), [(WORDS, "word"), (LIST, "item"), (TABLE, "row")])
def test_a_resize_in_tmux_leaves_no_copies(text, word, tmp_path):
    screen = Tmux(tmp_path, STREAM.format(text=text), 100, 24)
    try:
        for share, width in ((0.3, 60), (0.5, 40), (0.7, 90), (1, 70)):
            (tmp_path / "allowed").write_text(str(int(share * len(text))))
            newest = re.findall(rf"{word}\d+ ", text[: int(share * len(text)) - 8])[-1].strip()
            screen.wait(rf"{newest}(?!\d)|END")
            screen.call("resize-window", "-x", str(width), "-y", "24")
        screen.wait("END")
        shown = re.sub(r"\s", "", screen.text())
    finally:
        screen.call("kill-server")
    for each in re.findall(rf"{word}\d+", text):
        assert len(re.findall(rf"{each}(?!\d)", shown)) == 1, screen


BARS = """
import shutil, time
from lacewing.chat.terminal.region import Region
import sys
region = Region(sys.stdout, shutil.get_terminal_size)
for count in range(3):
    region.show(["a bar", "another", "a third"][: 3 - count])
region.show([])
print("END", flush=True)
time.sleep(600)
"""


def test_what_is_taken_away_is_gone_in_tmux(tmp_path):
    """Also from the first line of the screen, which tmux would put into its history."""
    screen = Tmux(tmp_path, BARS, 80, 24)
    try:
        screen.wait("END")
        assert screen.text().split() == ["END"]
    finally:
        screen.call("kill-server")
