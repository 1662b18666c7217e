"""Hermes, Qwen 2.5 and 3, and many others: a JSON object between tags. Reference: the chat templates of these models.

Small models, such as Qwen2.5-Coder, leave the tags out or write a fenced block instead; an answer that begins so is a call.
"""

from __future__ import annotations

from lacewing.assistant.tools.definitions import Tool
from lacewing.assistant.tools.format import Format, head
from lacewing.assistant.tools.json_calls import JsonCalls
from lacewing.assistant.tools.lark import Lark
from lacewing.assistant.tools.parsing import Steps

BEGIN, END = "<tool_call>", "</tool_call>"
FENCES = ("```json", "```")


class HermesCalls(JsonCalls):
    marks = (BEGIN,)
    openings = ("{", *(f"{fence}\n{{" for fence in FENCES))

    def call(self) -> Steps:
        if not (yield from self.source.literal(BEGIN)):
            fence = yield from self.source.one_of(FENCES)
            yield from self.objects(loose=False)
            if fence is not None:
                yield from self.source.sequence(FENCES[-1])
            return
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
