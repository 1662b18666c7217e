"""Grammars of calls that must be made: a text for each format, tool by tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lacewing.assistant.tools.definitions import Tool
from lacewing.assistant.tools.format import Format
from lacewing.assistant.tools.lark import Lark, Thoughts


def calls(
    form: Format,
    tools: Sequence[Tool],
    tokens: Mapping[str, int],
    *,
    parallel: bool = True,
    thoughts: Thoughts | None = None,
) -> str:
    """The grammar of an answer that calls one of `tools`, or several if `parallel`, and says nothing else after its thoughts.

    `tokens`: the control tokens of the vocabulary among the marks of the format and of thoughts.
    """
    lark = Lark(tokens)
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
