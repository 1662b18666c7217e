"""What is printed: text that is safe for a terminal, and tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

# A model's text may hold escape sequences that change the terminal; only line ends and tabs are let through. Two characters
# of Unicode turn the direction of what follows, so that a line reads differently from what it is.
_CONTROL: dict[int, str | None] = {
    code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160), 0x202D, 0x202E) if chr(code) not in "\n\t"
}


def clean(text: str) -> str:
    """The text with nothing in it that would control a terminal; the end of a Windows line is a plain one."""
    return text.replace("\r\n", "\n").translate(_CONTROL)


class Output:
    """Writes pieces as they come, flushed; control characters are replaced when `stream` is a terminal."""

    def __init__(self, stream: TextIO):
        self.stream, self._terminal = stream, stream.isatty()
        self._fresh = True  # at the start of a line

    def write(self, text: str) -> None:
        if text:
            self._fresh = text.endswith("\n")
            self.stream.write(clean(text) if self._terminal else text)
            self.stream.flush()

    def end_line(self) -> None:
        """Go to a new line unless at the start of one."""
        if not self._fresh:
            self.write("\n")


@dataclass(frozen=True)
class Table:
    """Rows of text under headings."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Columns:
    """Texts side by side, each under its heading."""

    headings: tuple[str, ...]
    texts: tuple[str, ...]


def aligned_lines(table: Table) -> Iterator[str]:
    """The table as plain text, its columns aligned; the headings are left out when all are empty."""
    rows = (table.headings, *table.rows) if any(table.headings) else table.rows
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))] if rows else []
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
