"""What a command answers, for a screen (rich) and for a pipe (plain text)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lacewing.chat.commands.table import Reply
from lacewing.console.output import Columns, Table, aligned_lines, clean, clean_answer, clean_line
from lacewing.options import spelled

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def plain_lines(reply: Reply) -> Iterator[str]:
    """Text, tables with their columns aligned, columns one below the other."""
    if reply.text:
        yield from clean(spelled(reply.text, chat=True)).split("\n")
    if isinstance(reply.data, Columns):
        for heading, text in zip(reply.data.headings, reply.data.texts, strict=True):
            yield f"--- {clean_line(heading)}"
            yield from clean(text).rstrip("\n").split("\n")
        return
    for table in (reply.data,) if isinstance(reply.data, Table) else reply.data or ():
        yield from ("", table.title) if table.title else ()
        yield from aligned_lines(table)


def renderables(reply: Reply) -> Iterator[RenderableType]:
    """The same for rich. Everything is cleaned: names and texts may come from a model or a file."""
    from rich.text import Text

    if reply.text:
        text = clean_answer(reply.text) if reply.kind in ("markdown", "code") else clean(spelled(reply.text, chat=True))
        if reply.kind == "diff":
            yield Text("\n").join(diff_line(line) for line in text.split("\n"))
        elif reply.kind == "markdown":
            from lacewing.chat.terminal.markdown import SafeMarkdown

            yield SafeMarkdown(text)
        elif reply.kind == "code":
            from lacewing.chat.terminal.markdown import code

            yield code(text, "text")
        else:
            yield Text(text)
    if reply.data is not None:
        from lacewing.chat.terminal.tables import FittedTable

        for part in (reply.data,) if isinstance(reply.data, Table | Columns) else reply.data:
            rows = (part.texts,) if isinstance(part, Columns) else part.rows
            cells = [[Text(clean(cell)) for cell in row] for row in rows]
            if isinstance(part, Table) and part.title:
                yield Text(f"\n{part.title}", style="bold underline")
            yield FittedTable([Text(clean_line(each)) for each in part.headings], cells, even=isinstance(part, Columns))


def diff_line(line: str) -> Text:
    """A line of a unified diff in its colour."""
    from rich.text import Text

    if line.startswith(("---", "+++")):
        return Text(line, style="bold")
    return Text(line, style=DIFF_STYLES.get(line[:1], ""))
