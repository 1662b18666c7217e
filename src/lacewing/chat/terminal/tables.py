"""Tables on a screen: as wide as they have to be, wrapped where they must, and cell below cell where that is shorter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

GAP = 2  # columns between two cells
LONG_WORD = 16  # columns; only a word longer than this is cut so that a table fits


@dataclass(frozen=True)
class FittedTable:
    """Cells under headings, all of which may be empty; `even`: all columns of one width, for texts to compare."""

    headings: Sequence[Text]
    rows: Sequence[Sequence[Text]]
    even: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = options.max_width
        widths = self._widths(room)
        if widths is None or (not self.even and self._height(widths) > self._height([room] * len(widths), below=True)):
            yield from self._records()
            return
        headed = any(heading.plain for heading in self.headings)
        table = Table(box=SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False, show_header=headed)
        for heading, width in zip(self.headings, widths, strict=True):
            table.add_column(_styled(heading, "bold"), width=width, overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        yield table

    def _height(self, widths: Sequence[int], below: bool = False) -> int:
        """About how many lines the rows take, their cells side by side or one `below` the other."""
        rows = [[-(-cell.cell_len // width) for cell, width in zip(row, widths, strict=True)] for row in self.rows]
        return sum((sum if below else max)(row or [0]) for row in rows)

    def _widths(self, room: int) -> list[int] | None:
        """Of the columns without the gaps; None if even short words would be cut."""
        columns = [[heading, *(row[place] for row in self.rows)] for place, heading in enumerate(self.headings)]
        room -= GAP * (len(columns) - 1)
        if self.even:
            return [max(room // len(columns), 1)] * len(columns)
        natural = [
            max(cell.cell_len if "\n" not in cell.plain else _widest(cell.plain.split("\n")) for cell in column)
            for column in columns
        ]
        widths = [min(LONG_WORD, _widest([word for cell in column for word in cell.plain.split()])) for column in columns]
        spare = room - sum(widths)
        if spare < 0:
            return None
        while spare and (narrow := [place for place, width in enumerate(widths) if width < natural[place]]):
            widths[min(narrow, key=lambda place: widths[place])] += 1
            spare -= 1
        return [max(width, 1) for width in widths]

    def _records(self) -> RenderResult:
        """The first cell of a row as a title, the others below it, each behind its heading."""
        for row in self.rows:
            marked = not self.headings[0].plain and any(each.plain for each in self.headings)  # the first column is a mark
            title, rest = (Text(" ").join(each for each in row[:2] if each.plain), 2) if marked else (row[0], 1)
            yield _styled(title, "bold")
            for heading, cell in zip(self.headings[rest:], row[rest:], strict=True):
                if cell.plain:
                    named = f"{heading.plain}: " if heading.plain and len(self.headings) > 2 else ""
                    yield Padding(Text.assemble((named, "dim"), cell), (0, 0, 0, 2))


def _styled(text: Text, style: str) -> Text:
    copy = text.copy()
    copy.stylize(Style.parse(style))
    return copy


def _widest(texts: Sequence[str]) -> int:
    return max(map(cell_len, texts), default=0)
