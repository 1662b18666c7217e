"""A terminal, by pyte: what can be seen of it by scrolling back. It clips its lines when it becomes narrower, as xterm does."""

from __future__ import annotations

import io

import pyte


class Emulator(io.StringIO):
    """`lines` is all that can be seen by scrolling back; only the last `height` of them can be written again."""

    def __init__(self, height=10, width=120):
        super().__init__()
        self._screen = pyte.HistoryScreen(width, height, history=10_000)
        self._stream = pyte.Stream(self._screen)
        self.writes = 0

    def isatty(self):
        return True

    def write(self, text):
        self.writes += 1
        self._stream.feed(text.replace("\n", "\r\n"))
        return len(text)

    def resize(self, width, height):
        self._screen.resize(height, width)

    @property
    def size(self):
        return self._screen.columns, self._screen.lines

    @property
    def cursor_hidden(self):
        return self._screen.cursor.hidden

    @property
    def lines(self):
        gone = ["".join(row[at].data for at in range(self._screen.columns)) for row in self._screen.history.top]
        return [*gone, *self._screen.display]

    @property
    def text(self):
        return "\n".join(line.rstrip() for line in self.lines).rstrip("\n")
