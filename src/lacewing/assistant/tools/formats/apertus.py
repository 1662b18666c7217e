"""Apertus: a list of JSON objects whose only key is the name of a tool, between control tokens. Reference: its chat template."""

from __future__ import annotations

import json

from lacewing.assistant.tools.definitions import Tool
from lacewing.assistant.tools.format import Format
from lacewing.assistant.tools.lark import Lark
from lacewing.assistant.tools.parsing import MARKUP, NotACall, Parser, Steps

BEGIN, END = "<|tools_prefix|>", "<|tools_suffix|>"


class ApertusCalls(Parser):
    marks = (BEGIN,)

    def call(self) -> Steps:
        yield from self.expect(BEGIN, "[")
        yield from self._one()
        while True:
            self.emit(MARKUP)
            if not (yield from self.source.sequence(",")):
                break
            yield from self._one()
        yield from self.source.sequence("]", END)

    def _one(self) -> Steps:
        source = self.source
        yield from self.expect("{", '"')
        name = yield from source.until(('"',))
        yield from source.literal('"')
        yield from self.expect(":")
        yield from source.space()
        if (yield from source.peek()) != "{":
            raise NotACall
        self.start(name)
        yield from self.copy()
        yield from source.sequence("}")


def _call(lark: Lark, tool: Tool) -> str:
    return f"{lark.spelt(f'{{{json.dumps(tool.name)}: ')} {lark.arguments(tool)} {lark.spelt('}')}"


FORMAT = Format(
    "apertus", ApertusCalls, spelt=(BEGIN, END), marks=(BEGIN, END), call=_call,
    opening=(BEGIN, "["), between=(", ",), closing=("]", END),
)  # fmt: skip
