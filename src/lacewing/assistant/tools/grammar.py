"""Grammars of calls that must be made: a text for each format, tool by tool."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lacewing.assistant.tools.definitions import Tool
from lacewing.assistant.tools.format import Format
from lacewing.assistant.tools.lark import Lark, Thoughts


def calls(
    form: Format,
    tools: Sequence[Tool],
    token: Callable[[str], int | None],
    *,
    parallel: bool = True,
    thoughts: Thoughts | None = None,
) -> str:
    """The grammar of an answer that calls one of `tools`, or several if `parallel`, and says nothing else after its thoughts."""
    lark = Lark(token)
    each = [lark.rule(f"call_{place}", form.call(lark, tool)) for place, tool in enumerate(tools)]
    lark.rule("call", " | ".join(each))
    more = f"({lark.spelt(*form.between)} call)*" if parallel and not form.one_call else ""
    body = " ".join(part for part in (lark.spelt(*form.opening), "call", more, lark.spelt(*form.closing)) if part)
    if thoughts is not None:
        told = lark.up_to(*thoughts.closing)
        told = told if thoughts.begun else f"({lark.spelt(*thoughts.opening)} {told})?"
        body = f"{told} /[ \\n]{{0,4}}/ {body}"
    lark.rule("start", body)
    return lark.text
