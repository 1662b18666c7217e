"""Llama 3 and 4: the answer is a JSON object or a list of calls as in Python, or one follows a control token.

Reference: Meta's model cards and prompt formats, the chat templates.
"""

from __future__ import annotations

from dataclasses import replace

from lacewing.assistant.tools.definitions import Tool
from lacewing.assistant.tools.format import Format, head
from lacewing.assistant.tools.lark import Lark
from lacewing.assistant.tools.parsing import Steps
from lacewing.assistant.tools.pythonic import PythonicCalls, spelling

PYTHON, BEGIN, END = "<|python_tag|>", "<|python_start|>", "<|python_end|>"  # the last two are Llama 4's


class LlamaCalls(PythonicCalls):
    marks = (PYTHON, BEGIN)
    openings = ("{", "[")  # in the middle of an answer a JSON object or a list is an example

    def call(self) -> Steps:
        source = self.source
        begin = yield from source.one_of(self.marks)
        if (yield from source.peek()) == "{":
            yield from self.objects(loose=False)
        else:
            yield from self.listed()
        if begin == BEGIN:
            yield from source.sequence(END)


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
LLAMA_4 = replace(FORMAT, name="llama4", spelt=("<|header_start|>", '"parameters": '), marks=(PYTHON, BEGIN, END))
# As Meta's prompts ask for it, in templates for either.
PYTHONIC = replace(
    LLAMA_4, name="llama-pythonic", spelt=("[func_name1(params_name1=",), call=spelling, one_call=False,
    opening=("[",), between=(", ",), closing=("]",),
)  # fmt: skip
