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
    free: bool = False,
) -> str:
    """The grammar of an answer that calls one of `tools`, or several if `parallel`, and says nothing else after its thoughts.

    `free`: it may say anything instead and beside, but what begins a call is one. `tokens`: the control tokens of the vocabulary
    among the marks of the format and of thoughts.
    """
    lark = Lark(tokens)
    each = [lark.rule(f"call_{place}", form.call(lark, tool)) for place, tool in enumerate(tools)]
    lark.rule("call", " | ".join(each))
    many = parallel and not form.one_call
    body = _free(lark, form, each, many) if free else _block(lark, form, "call", many)
    if thoughts is not None:
        told = lark.up_to(*thoughts.closing)
        told = told if thoughts.begun else f"({lark.spelt(*thoughts.opening)} {told})?"
        body = f"{told} /[ \\n]{{0,4}}/ ({body})"
    lark.rule("start", body)
    return lark.text


def _block(lark: Lark, form: Format, first: str, many: bool) -> str:
    """Calls in a row, the first of them by its rule."""
    more = f"({lark.spelt(*form.between)} call)*" if many else ""
    return " ".join(part for part in (lark.spelt(*form.opening), first, more, lark.spelt(*form.closing)) if part)


def _free(lark: Lark, form: Format, each: Sequence[str], many: bool) -> str:
    """Text, with calls where their mark stands."""
    anything = lark.rule("anything", "/(?s:.*)/")
    if form.without_calls:
        others = " ".join((lark.spelt(*form.without_calls), anything))
        return f"{_block(lark, form, 'call', many)} | {others}"
    if not form.marked:
        begins = "".join(f"\\{opening[0]}" for opening in form.parser.openings)
        other = lark.rule("other", f"/(?s:[^{begins} \\n].*)?/")  # what does not begin like a call
        return f"{_block(lark, form, 'call', many)} | {other}"
    mark = (form.opening or form.marks)[0]
    if form.opening:
        tail = lark.behind(_block(lark, form, "call", many), mark)
    else:
        tail = lark.rule("tail", " | ".join(lark.rule(f"{name}_tail", lark.behind(lark.body(name), mark)) for name in each))
    marked = f"{lark.up_to(mark)} {tail}"
    return f"({marked})* {anything}" if many else f"{marked} | {anything}"
