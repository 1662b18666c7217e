"""As much of a terminal as the region below the output uses; whatever else would change the screen is an error."""

from __future__ import annotations

import io
import re

_TOKEN = re.compile(r"\x1b\[(\d*)([A-Za-z])|\x1b\[[\d;]*m|([\n\r])|([^\x1b\n\r]+)")


class Emulator(io.StringIO):
    """`lines` is all that can be seen by scrolling back; only the last `height` of them can be written again."""

    def __init__(self, height=10):
        super().__init__()
        self.height, self.lines, self.row, self.column, self.writes = height, [""], 0, 0, 0

    def isatty(self):
        return True

    def write(self, text):
        self.writes += 1
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            assert match, f"not understood: {text[at : at + 20]!r}"
            at = match.end()
            if match[2]:
                self._control(match[2], int(match[1] or 1), match[1])
            elif match[3] == "\n":
                self.row += 1
                self.column = 0
                if self.row == len(self.lines):
                    self.lines.append("")
            elif match[3] == "\r":
                self.column = 0
            elif match[4]:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + match[4] + line[self.column + len(match[4]) :]
                self.column += len(match[4])
        return len(text)

    def _control(self, letter, count, given):
        if letter == "A":
            self.row -= count
            assert self.row >= max(0, len(self.lines) - self.height), "moved above the screen"
        elif letter == "K":
            self.lines[self.row] = ""
            assert given == "2"
        elif letter == "J":
            del self.lines[self.row + 1 :]
            self.lines[self.row] = self.lines[self.row][: self.column]
        elif letter != "m":
            raise AssertionError(f"a control that is not used here: {letter}")

    @property
    def text(self):
        return "\n".join(line.rstrip() for line in self.lines).rstrip("\n")
