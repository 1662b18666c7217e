"""`lacewing chat` in a pseudo-terminal. It waits for what the program shows, never for time to pass."""

from __future__ import annotations

import os
import re
import sys

import pexpect

from tests.chat.terminal.emulator import Emulator

READY, SENT = re.escape("\x1b[?2004h"), re.escape("\x1b[?2004l")  # the editor begins and ends to take pastes
PATIENCE = 60  # seconds, for a busy machine
CTRL_C, CTRL_D, CTRL_O, ALT_ENTER = "\x03", "\x04", "\x0f", "\x1b\r"

# A program that reads weights as slowly as it is told to, until it is cancelled.
SLOW_DISK = """
import time
from lacewing.errors import Cancelled
from lacewing.weights import WeightStore
from lacewing.cli import main
real, loads = WeightStore.set_residency, []
def slow(self, residency, progress=None, cancelled=None):
    loads.append(residency)
    if len(loads) > {fast}:
        for done in range(6000):
            if cancelled and cancelled():
                raise Cancelled("cancelled")
            if progress:
                progress("reading weights", done * 10**6, 6000 * 10**6)
            time.sleep(0.01)
    return real(self, residency, progress, cancelled)
WeightStore.set_residency = slow
main()
"""

# A program in which a change of the model takes its time, and asks nobody meanwhile whether it should end.
DEAF = """
import time
from lacewing.chat.services import swap
from lacewing.cli import main
real = swap.plan_swap
def slow(*arguments):
    print("slow work begins", flush=True)
    for hundredths in range({hundredths}):
        time.sleep(0.01)
    return real(*arguments)
swap.plan_swap = slow
main()
"""


class Chat:
    """One conversation; use it in a `with`, which leaves it."""

    def __init__(self, folder, *words, program=None, cursor_reports=False, **variables):
        start = ["-c", program] if program else ["-m", "lacewing"]
        environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "TERM": "xterm-256color", "COLUMNS": "", "LINES": ""}
        environment |= variables
        environment |= {} if cursor_reports else {"PROMPT_TOOLKIT_NO_CPR": "1"}
        self.process = pexpect.spawn(
            sys.executable,
            [*start, "chat", *map(str, words)],
            encoding="utf-8",
            codec_errors="replace",
            timeout=PATIENCE,
            env=environment,
            dimensions=(40, 120),
            cwd=str(folder),
        )
        self.process.delaybeforesend = None

    def ready(self):
        """Wait for the editor; what was shown before it."""
        self.process.expect(READY)
        shown = plain(self.process.before)
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown), shown  # whatever the model says
        return shown

    def send(self, line):
        """Send a line and wait until it is taken."""
        self.process.send(line + "\r")
        self.process.expect(SENT)

    def seen(self):
        """What the screen shows of the last turn; the terminal has made its own line ends."""
        screen = Emulator(height=40)
        screen.write(self.process.before.replace("\r\n", "\n"))
        return screen.text

    def turn(self, line):
        """Send a line; all that is shown until the editor is back."""
        self.send(line)
        return self.ready()

    def expect(self, pattern):
        self.process.expect(pattern)
        return plain(self.process.after)

    def press(self, key):
        self.process.send(key)

    def leave(self):
        """The exit code."""
        self.process.expect(pexpect.EOF)
        self.process.close()
        assert "Traceback" not in self.process.before
        return self.process.exitstatus if self.process.signalstatus is None else -self.process.signalstatus

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.close(force=True)


def plain(text):
    """What can be read of it."""
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\r", "", text)
