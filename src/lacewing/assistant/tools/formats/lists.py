"""Nemotron Nano 2 and Hunyuan: a list of JSON objects between tags. Reference: their chat templates.

Nemotron 3 writes as Qwen3-Coder does.
"""

from __future__ import annotations

from dataclasses import replace

from lacewing.assistant.tools.definitions import Tool
from lacewing.assistant.tools.format import Format, head
from lacewing.assistant.tools.json_calls import JsonCalls
from lacewing.assistant.tools.lark import Lark
from lacewing.assistant.tools.parsing import Steps

BEGIN, END = "<TOOLCALL>", "</TOOLCALL>"
HUNYUAN, HUNYUAN_END = "<tool_calls>", "</tool_calls>"


class ListedCalls(JsonCalls):
    marks = (BEGIN,)
    closing = END

    def call(self) -> Steps:
        yield from self.expect(*self.marks)
        yield from self.objects(loose=True)
        yield from self.source.sequence(self.closing)


class HunyuanCalls(ListedCalls):
    marks = (HUNYUAN,)
    closing = HUNYUAN_END


def _call(lark: Lark, tool: Tool) -> str:
    return f"{lark.spelt(head(tool, 'arguments'))} {lark.arguments(tool)} {lark.spelt('}')}"


NEMOTRON = Format(
    "nemotron", ListedCalls, spelt=(BEGIN, "<AVAILABLE_TOOLS>"), marks=(BEGIN, END), call=_call,
    opening=(BEGIN, "["), between=(", ",), closing=("]", END),
)  # fmt: skip
HUNYUAN_FORMAT = replace(
    NEMOTRON, name="hunyuan", parser=HunyuanCalls, spelt=(f'{HUNYUAN}[{{"name"', "<|extra_0|>"), marks=(HUNYUAN, HUNYUAN_END),
    opening=(HUNYUAN, "["), closing=("]", HUNYUAN_END),
)  # fmt: skip
