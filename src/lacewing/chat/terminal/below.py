"""The toolbar below the editor, and the map of the experts below an answer.

Rows of the map are layers, columns experts, colours their load so far.
"""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from lacewing.chat.commands.state import LIVE
from lacewing.chat.session.conversation import Conversation
from lacewing.chat.session.events import Status
from lacewing.chat.session.models import OnDevice
from lacewing.chat.session.session import Session
from lacewing.chat.terminal.markdown import rendered_lines
from lacewing.console.heat import Cell, heat_map
from lacewing.options import counted

COLUMNS = 64  # cells of a row of the map, at most
SHARE = 3  # a third of the screen, at most
_STYLES = ("dim", "blue", "green", "yellow", "bold red")  # by level: none, under half an even share, about even, more, far more
_FILL, _SEPARATOR = "▁▂▃▄▅▆▇█", " · "


def toolbar_line(status: Status, width: int) -> str:
    """One line; what matters least goes first when it gets narrow."""
    parts = {"model": _short(status.model, max(width // 3, 12)), "template": status.template}
    parts |= {"residency": status.residency, "backend": status.backend}
    if status.context:
        share = min(status.used_tokens / status.context, 1.0)
        parts["fill"] = f"{_FILL[min(int(share * len(_FILL)), len(_FILL) - 1)]} {status.used_tokens}/{status.context}"
    else:
        parts["fill"] = counted(status.used_tokens, "token")
    parts = {name: part for name, part in parts.items() if part}  # a server may not tell all of them
    if status.tokens_per_second:
        parts["rate"] = f"{status.tokens_per_second:.1f} tok/s"
    if status.code:
        parts["code"] = "code"
    for name in ("backend", "template", "rate", "residency"):
        if len(_SEPARATOR.join(parts.values())) > width:
            parts.pop(name, None)
    return _SEPARATOR.join(parts.values())[: max(width, 0)]


def _short(name: str, width: int) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"


def heat_lines(session: Conversation, console: Console) -> list[str]:
    """Empty if the experts are not watched, or nothing has run yet."""
    current = session.current if isinstance(session, Session) else None
    if not session.extras.get(LIVE) or not isinstance(current, OnDevice) or current.routing is None:
        return []
    rows = heat_map(current.routing.statistics, max(8, min(COLUMNS, console.width - 16)), max(2, console.height // SHARE - 2))
    if not rows:
        return []
    title = Text("experts by layer, blue: few tokens, red: many, reversed: the last one", style="dim")
    title.truncate(console.width - 1)
    width = max(len(name) for name, _ in rows)
    lines = [Text.assemble((f"{name:>{width}} ", "dim"), _row(cells)) for name, cells in rows]
    return ["", *rendered_lines(console, Text("\n").join([title, *lines]))]


def _row(cells: list[Cell]) -> Text:
    return Text.assemble(*((cell.character, f"{_STYLES[cell.level]}{' reverse' if cell.newest else ''}") for cell in cells))
