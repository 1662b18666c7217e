"""Granite 3: a control token, then a list of JSON objects. Granite 4 writes as Hermes does. Reference: chat templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lacewing.assistant.tools.definitions import Tool
from lacewing.assistant.tools.format import Format, head
from lacewing.assistant.tools.json_calls import JsonCalls
from lacewing.assistant.tools.lark import Lark
from lacewing.assistant.tools.parsing import Steps

BEGIN, OTHER = "<|tool_call|>", "<tool_call>"


class GraniteCalls(JsonCalls):
    marks = (BEGIN, OTHER)  # 3.1 writes the second now and then

    def call(self) -> Steps:
        yield from self.source.one_of(self.marks)
        yield from self.objects(loose=True)


def _call(lark: Lark, tool: Tool) -> str:
    return f"{lark.spelt(head(tool, 'arguments'))} {lark.arguments(tool)} {lark.spelt('}')}"


def _write(functions: Sequence[Mapping[str, Any]]) -> str:
    calls = (f'{{"name": "{each["name"]}", "arguments": {each["arguments"]}}}' for each in functions)
    return f"{BEGIN}[{', '.join(calls)}]"


FORMAT = Format(
    "granite", GraniteCalls, spelt=(BEGIN, "<|start_of_role|>"), marks=(BEGIN, OTHER), call=_call, write=_write,
    opening=(BEGIN, "["), between=(", ",), closing=("]",),
)  # fmt: skip
