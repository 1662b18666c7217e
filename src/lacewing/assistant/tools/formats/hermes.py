"""Hermes, Qwen 2.5 and 3, and many others: a JSON object between tags. Reference: the chat templates of these models."""

from __future__ import annotations

from lacewing.assistant.tools.definitions import Tool
from lacewing.assistant.tools.format import Format, head
from lacewing.assistant.tools.json_calls import JsonCalls
from lacewing.assistant.tools.lark import Lark
from lacewing.assistant.tools.parsing import Steps

BEGIN, END = "<tool_call>", "</tool_call>"


class HermesCalls(JsonCalls):
    marks = (BEGIN,)

    def call(self) -> Steps:
        yield from self.expect(BEGIN)
        yield from self.objects(loose=True)
        at = self.source.at
        yield from self.source.space("}")  # a brace too many, which small models write
        if not (yield from self.source.literal(END)):
            self.source.at = at


def _call(lark: Lark, tool: Tool) -> str:
    return f"{lark.spelt(BEGIN, chr(10) + head(tool, 'arguments'))} {lark.arguments(tool)} {lark.spelt('}' + chr(10), END)}"


TOLD = """You can call these functions:
<tools>
{tools}
</tools>

To call one, write a JSON object with its name and arguments between tags; the results come between <tool_response> tags:
<tool_call>
{"name": "the name of the function", "arguments": {"a parameter": "its value"}}
</tool_call>"""
FORMAT = Format("hermes", HermesCalls, spelt=(BEGIN,), marks=(BEGIN, END), call=_call, between=("\n",), told=TOLD)
