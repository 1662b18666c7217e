"""Lines at the end of the output that may be written again: what streams, and bars. Only lines that change are rewritten."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import IO

from rich.cells import cell_len

_UP, _DOWN, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[{}A", "\x1b[{}B", "\x1b[2K", "\x1b[J"
_RIGHT = "\x1b[C"
_CLIP, _WRAP = "\x1b[?7l", "\x1b[?7h"  # a screen that has just become narrower must not wrap what may be rewritten
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_ESCAPES, _NO_LETTERS = re.compile(r"\x1b\[[\d;]*m"), re.compile(r"\x1b\[[\d;]*m|\s+")


class Region:
    """Rests with the cursor, hidden, on the first of its lines that can be reached: a terminal that wraps its lines anew for
    another width takes the cursor along. Lines that have left the screen at its top stay as they were.

    tmux counts empty lines below the cursor, so that its top may then leave the screen, and tells us of another width late: there
    the cursor rests at the end of the last line, and what only grows is not written again.
    """

    def __init__(self, stream: IO[str], size: Callable[[], tuple[int, int]]):
        self._stream, self._size = stream, size  # columns, lines
        self._lines: list[str] = []
        self._above = self._row = 0  # so many of them have left the screen; that of the cursor
        self._shape = (0, 0)
        self.in_tmux = "TMUX" in os.environ

    @property
    def resized(self) -> bool:
        """Whether the screen has another shape than when the lines were written."""
        return bool(self._lines) and self._size() != self._shape

    def show(self, lines: Sequence[str], settled: int = 0) -> None:
        """These lines instead of those shown before, the first `settled` of them for good; none may be wider than the screen."""
        old, resized, self._shape = self._lines, self.resized, self._size()
        if resized:  # all that can be reached is written anew, from the letter on that follows what cannot
            up = sum(-(-cell_len(_ESCAPES.sub("", line)) // self._shape[0]) or 1 for line in old[self._above :]) - 1
            self._above = first = _after_letters(lines, old[: self._above])
            self._row = first + (up if self.in_tmux else 0)
        else:
            first = max(_common(old, lines), self._above)
            lines = [*old[:first], *lines[first:]]
        if resized or settled or lines != old:
            self._write(lines, first, settled, resized)
        self._lines = list(lines[settled:])

    def _write(self, lines: Sequence[str], first: int, settled: int, resized: bool) -> None:
        """The lines from `first` on; then the cursor goes back to the first that may be written again."""
        appends = first == len(self._lines) > self._above and not resized  # that row may be below the screen
        row, above, ends, rest = first - appends, self._above, lines[first:settled], lines[max(first, settled) :]
        if self.in_tmux and not ends and rest and first == self._row < len(self._lines) and rest[0].startswith(self._lines[first]):
            parts = ["\n".join([rest[0].removeprefix(self._lines[first]), *rest[1:]])]
            row, above = len(lines) - 1, max(above, len(lines) - self._shape[1])
        elif not appends or first < len(lines) or settled == len(lines):
            parts = [_HIDE, self._to(row), "\r", "\n" * appends, *(f"{_CLEAR_LINE}{line}\n" for line in ends)]
            clip, wrap = ("", "") if self.in_tmux else (_CLIP, _WRAP)
            parts += [clip, "\n".join(f"{_CLEAR_LINE}{line}" for line in rest), wrap] if rest else []
            # tmux keeps what is cleared from its first column on, as if it had left the screen.
            parts += [_CLEAR_BELOW] if rest and rest[-1] else [_CLEAR_LINE, _RIGHT, _CLEAR_BELOW, "\r"]
            row = len(lines) - bool(rest)
            above = max(above, len(lines) - self._shape[1]) if rest else above
        else:
            parts = [self._to(row)]
        self._row, above = row, max(above, settled)
        parts += [_SHOW] if settled == len(lines) else [] if self.in_tmux else ["\r", self._to(above)]
        self._stream.write("".join(parts))
        self._stream.flush()
        self._above, self._row = above - settled, self._row - settled

    def _to(self, row: int) -> str:
        """The cursor, from its row to another."""
        move, self._row = row - self._row, row
        return _DOWN.format(move) if move > 0 else _UP.format(-move) if move else ""

    def keep(self) -> None:
        """Keep what is shown; the region starts again below."""
        if self._lines:
            self._write(self._lines, len(self._lines), len(self._lines), False)
        self._lines, self._above, self._row = [], 0, 0


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    return next((row for row, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _after_letters(lines: Sequence[str], gone: Sequence[str]) -> int:
    """The first line behind the text of `gone`, which was wrapped for another width."""
    letters = sum(len(_NO_LETTERS.sub("", line)) for line in gone)
    for row, line in enumerate(lines):
        if letters <= 0:
            return row
        letters -= len(_NO_LETTERS.sub("", line))
    return len(lines)
