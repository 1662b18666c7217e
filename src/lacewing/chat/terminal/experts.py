"""A map of the experts below an answer while it comes: rows are layers, columns experts, colours their load so far."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from lacewing.chat.commands.experts import LIVE
from lacewing.chat.heat import Cell, heat_map
from lacewing.chat.session import Session
from lacewing.chat.terminal.markdown import rendered_lines

COLUMNS = 64  # cells of a row, at most
SHARE = 3  # a third of the screen, at most
_STYLES = ("dim", "blue", "green", "yellow", "bold red")  # by level: none, under half an even share, about even, more, far more


def heat_lines(session: Session, console: Console) -> list[str]:
    """Nothing where the experts are not watched, or nothing has run yet."""
    from lacewing.engine.routing import WatchedStep

    step = session.model.engine.step
    if not session.extras.get(LIVE) or not isinstance(step, WatchedStep):
        return []
    rows = heat_map(step.statistics, max(8, min(COLUMNS, console.width - 16)), max(2, console.height // SHARE - 2))
    if not rows:
        return []
    title = Text("experts by layer, blue: few tokens, red: many, reversed: the last one", style="dim")
    title.truncate(console.width - 1)
    width = max(len(name) for name, _ in rows)
    lines = [Text.assemble((f"{name:>{width}} ", "dim"), _row(cells)) for name, cells in rows]
    return ["", *rendered_lines(console, Text("\n").join([title, *lines]))]


def _row(cells: list[Cell]) -> Text:
    return Text.assemble(*((cell.character, f"{_STYLES[cell.level]}{' reverse' if cell.newest else ''}") for cell in cells))
