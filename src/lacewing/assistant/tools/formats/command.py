"""Command R7B, Command A and A+: a list of JSON objects, with counted ids, between control tokens. Reference: chat templates."""

from __future__ import annotations

from lacewing.assistant.tools.definitions import Tool
from lacewing.assistant.tools.format import Format
from lacewing.assistant.tools.json_calls import JsonCalls
from lacewing.assistant.tools.lark import Lark
from lacewing.assistant.tools.parsing import Steps

BEGIN, END = "<|START_ACTION|>", "<|END_ACTION|>"


class CommandCalls(JsonCalls):
    marks = (BEGIN,)
    name_key = "tool_name"

    def call(self) -> Steps:
        yield from self.expect(BEGIN)
        yield from self.objects(loose=True)
        yield from self.source.sequence(END)


def _call(lark: Lark, tool: Tool) -> str:
    named = lark.spelt(f'", "tool_name": "{tool.name}", "parameters": ')
    return f"""{lark.spelt('{"tool_call_id": "')} /[0-9]{{1,4}}/ {named} {lark.arguments(tool)} {lark.spelt("}")}"""


FORMAT = Format(
    "command", CommandCalls, spelt=(BEGIN, "tool_name"), marks=(BEGIN, END), call=_call,
    opening=(BEGIN, "[\n    "), between=(",\n    ",), closing=("\n]", END),
)  # fmt: skip
