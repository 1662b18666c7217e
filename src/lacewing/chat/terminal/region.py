"""Lines at the end of the output that may be written again: what streams, and bars. Only lines that change are rewritten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import IO

_UP, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[{}A", "\x1b[2K", "\x1b[J"


class Region:
    """Rests with the cursor on a new line below its lines. Lines that have left the screen at its top stay as they were."""

    def __init__(self, stream: IO[str], size: Callable[[], tuple[int, int]]):
        self._stream, self._size = stream, size  # columns, lines
        self._lines: list[str] = []
        self._columns = 0

    def show(self, lines: Sequence[str], settled: int = 0) -> None:
        """These lines instead of those shown before, the first `settled` of them for good; none may be wider than the screen."""
        columns, height = self._size()
        if columns != self._columns:  # the terminal has wrapped our lines again: they cannot be found any more
            self._columns, self._lines = columns, []
        old = self._lines
        first = max(_common(old, lines), len(old) - max(height - 1, 1))
        if first < len(lines) or first < len(old):
            self._write(old, lines, first)
        # Lines that cannot be reached any more count as they are on the screen.
        self._lines = [*old[:first], *lines[first:]][settled:]

    def _write(self, old: Sequence[str], lines: Sequence[str], first: int) -> None:
        parts = [_UP.format(len(old) - first)] if len(old) > first else []
        parts += ["\r", *(f"{_CLEAR_LINE}{line}\n" for line in lines[first:])]
        if len(lines) < len(old):
            parts.append(_CLEAR_BELOW)
        self._stream.write("".join(parts))
        self._stream.flush()

    def keep(self) -> None:
        """Keep what is shown; the region starts again below."""
        self._lines = []


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    return next((row for row, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
