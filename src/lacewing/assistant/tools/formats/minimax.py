"""MiniMax-M2: parameters between tags that name them, in a block of calls. Reference: its chat template and its tool-call guide."""

from __future__ import annotations

from collections.abc import Generator

from lacewing.assistant.tools.definitions import Tool
from lacewing.assistant.tools.format import Format
from lacewing.assistant.tools.lark import Lark, tagged
from lacewing.assistant.tools.parsing import Steps
from lacewing.assistant.tools.tagged import Parameter, TaggedCalls

BLOCK, BLOCK_END = "<minimax:tool_call>", "</minimax:tool_call>"
INVOKE, INVOKE_END = '<invoke name="', "</invoke>"
PARAMETER, PARAMETER_END = '<parameter name="', "</parameter>"


class MiniMaxCalls(TaggedCalls):
    marks = (BLOCK,)
    closing, followers = PARAMETER_END, (PARAMETER, INVOKE_END)

    def call(self) -> Steps:
        yield from self.expect(BLOCK)
        yield from self.invocations(INVOKE, INVOKE_END)
        yield from self.source.sequence(BLOCK_END)

    def parameter(self, tool: Tool) -> Generator[None, None, Parameter | None]:
        source, at = self.source, self.source.at
        name = (yield from source.until(('"',))) if (yield from source.sequence(PARAMETER)) else None
        if name is not None and (yield from source.literal('">')):
            return name, tool.types(name)
        source.at = at
        return None


def _call(lark: Lark, tool: Tool) -> str:
    parameters = tagged(lark, tool, lambda name: (f'{PARAMETER}{name}">',), (f"{PARAMETER_END}\n",))
    opening, closing = lark.spelt(f'{INVOKE}{tool.name}">\n'), lark.spelt(f"{INVOKE_END}\n")
    return f"{opening} {parameters} {closing}"


FORMAT = Format(
    "minimax", MiniMaxCalls, spelt=(BLOCK, INVOKE, PARAMETER), marks=(BLOCK, BLOCK_END), call=_call,
    opening=(BLOCK, "\n"), closing=(BLOCK_END,),
)  # fmt: skip
