"""Kimi K2: a section of calls, each with an id that says its name. Reference: its chat template and its tool-call guide."""

from __future__ import annotations

import re

from lacewing.assistant.tools.definitions import Tool
from lacewing.assistant.tools.format import Format
from lacewing.assistant.tools.history import counted_id
from lacewing.assistant.tools.lark import Lark
from lacewing.assistant.tools.parsing import NotACall, SectionParser, Steps

SECTION, SECTION_END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
BEGIN, ARGUMENT, END = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"
_ID = re.compile(r"\s*(?:functions\.)?(?P<name>.+?)(?::[0-9]+)?\s*\Z", re.DOTALL)


class KimiCalls(SectionParser):
    marks = (SECTION, BEGIN)

    section, begin, section_end = SECTION, BEGIN, SECTION_END

    def one(self) -> Steps:
        yield from self.expect(BEGIN)
        id = yield from self.source.until((ARGUMENT, END))
        found = _ID.match(id or "")
        if found is None or not (yield from self.source.literal(ARGUMENT)):
            raise NotACall
        yield from self.source.space()
        if (yield from self.source.peek()) != "{":
            raise NotACall
        self.start(found["name"], found.group().strip())
        yield from self.copy()
        yield from self.source.sequence(END)


def _call(lark: Lark, tool: Tool) -> str:
    begin = f"{lark.spelt(BEGIN, f'functions.{tool.name}:')} /[0-9]{{1,4}}/ {lark.spelt(ARGUMENT)}"
    return f"{begin} {lark.arguments(tool)} {lark.spelt(END)}"


def make_id(name: str, index: int) -> str:
    """As the model counts its calls."""
    return f"functions.{name}:{index}"


FORMAT = Format(
    "kimi", KimiCalls, spelt=(SECTION,), marks=(SECTION, SECTION_END, BEGIN, ARGUMENT, END), call=_call,
    opening=(SECTION,), closing=(SECTION_END,), make_id=make_id, past_id=counted_id,
)  # fmt: skip
