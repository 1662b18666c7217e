"""Qwen3-Coder, Qwen3.5, Nemotron 3: parameters between tags that name them. Reference: the chat templates of these models."""

from __future__ import annotations

from collections.abc import Generator

from lacewing.assistant.tools.definitions import Tool
from lacewing.assistant.tools.format import Format
from lacewing.assistant.tools.lark import Lark, tagged
from lacewing.assistant.tools.parsing import Steps
from lacewing.assistant.tools.tagged import Parameter, TaggedCalls

BEGIN, END = "<tool_call>", "</tool_call>"
FUNCTION, FUNCTION_END = "<function=", "</function>"
PARAMETER, PARAMETER_END = "<parameter=", "</parameter>"


class QwenCoderCalls(TaggedCalls):
    marks = (BEGIN, FUNCTION)  # the outer tag is often left out
    closing, followers, trims = PARAMETER_END, (PARAMETER, FUNCTION_END, END), True

    def call(self) -> Steps:
        source = self.source
        yield from source.literal(BEGIN)
        yield from self.expect(FUNCTION)
        name = yield from source.until((">",))
        yield from source.literal(">")
        self.start((name or "").strip())
        yield from self.parameters(self.tools[(name or "").strip()])
        yield from source.sequence(FUNCTION_END)
        yield from source.sequence(END)

    def parameter(self, tool: Tool) -> Generator[None, None, Parameter | None]:
        source, at = self.source, self.source.at
        name = (yield from source.until((">", "\n"))) if (yield from source.sequence(PARAMETER)) else None
        if name is not None and (yield from source.literal(">")):
            return name.strip(), tool.types(name.strip())
        source.at = at
        return None


def _call(lark: Lark, tool: Tool) -> str:
    parameters = tagged(lark, tool, lambda name: (f"{PARAMETER}{name}>\n",), (f"\n{PARAMETER_END}\n",))
    begin, end = lark.spelt(BEGIN, f"\n{FUNCTION}{tool.name}>\n"), lark.spelt(f"{FUNCTION_END}\n", END)
    return f"{begin} {parameters} {end}"


FORMAT = Format("qwen-coder", QwenCoderCalls, spelt=(FUNCTION,), tokens=(), marks=(BEGIN, END), call=_call, between=("\n",))
