"""Llama 3: the answer is a JSON object, or one follows a control token. Reference: Meta's model cards, the chat templates."""

from __future__ import annotations

from lacewing.assistant.tools.definitions import Tool
from lacewing.assistant.tools.format import Format, head
from lacewing.assistant.tools.json_calls import JsonCalls
from lacewing.assistant.tools.lark import Lark
from lacewing.assistant.tools.parsing import Steps

PYTHON = "<|python_tag|>"


class LlamaCalls(JsonCalls):
    marks = (PYTHON,)
    openings = ("{",)  # in the middle of an answer a JSON object is an example

    def call(self) -> Steps:
        yield from self.source.literal(PYTHON)
        yield from self.objects(loose=False)


def _call(lark: Lark, tool: Tool) -> str:
    return f"{lark.spelt(head(tool, 'parameters'))} {lark.arguments(tool)} {lark.spelt('}')}"


FORMAT = Format(
    "llama",
    LlamaCalls,
    spelt=("<|start_header_id|>", '"parameters": '),
    marks=(PYTHON,),
    call=_call,
    one_call=True,
    marked=False,
)
