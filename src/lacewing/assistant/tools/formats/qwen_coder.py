"""Qwen3-Coder, Qwen3.5, Nemotron 3, Step 3.5, Seed: parameters between tags that name them. Reference: their chat templates."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from functools import partial

from lacewing.assistant.tools.definitions import Tool
from lacewing.assistant.tools.format import Format
from lacewing.assistant.tools.lark import Lark, tagged
from lacewing.assistant.tools.parsing import Steps
from lacewing.assistant.tools.tagged import Parameter, TaggedCalls

BEGIN, END = "<tool_call>", "</tool_call>"
SEED, SEED_END = "<seed:tool_call>", "</seed:tool_call>"
FUNCTION, FUNCTION_END = "<function=", "</function>"
PARAMETER, PARAMETER_END = "<parameter=", "</parameter>"


class QwenCoderCalls(TaggedCalls):
    marks = (BEGIN, SEED, FUNCTION)  # the outer tag is often left out
    closing, followers, trims = PARAMETER_END, (PARAMETER, FUNCTION_END, END, SEED_END), True

    def call(self) -> Steps:
        source = self.source
        begin = yield from source.one_of((BEGIN, SEED))
        yield from self.expect(FUNCTION)
        name = yield from source.until((">",))
        yield from source.literal(">")
        self.start((name or "").strip())
        yield from self.parameters(self.tools[(name or "").strip()])
        yield from source.sequence(FUNCTION_END)
        yield from source.sequence(SEED_END if begin == SEED else END)

    def parameter(self, tool: Tool) -> Generator[None, None, Parameter | None]:
        source, at = self.source, self.source.at
        name = (yield from source.until((">", "\n"))) if (yield from source.sequence(PARAMETER)) else None
        if name is not None and (yield from source.literal(">")):
            return name.strip(), tool.types(name.strip())
        source.at = at
        return None


def _call(lark: Lark, tool: Tool, begin: str = BEGIN, end: str = END) -> str:
    parameters = tagged(lark, tool, lambda name: (f"{PARAMETER}{name}>\n",), (f"\n{PARAMETER_END}\n",))
    opening, closing = lark.spelt(begin, f"\n{FUNCTION}{tool.name}>\n"), lark.spelt(f"{FUNCTION_END}\n", end)
    return f"{opening} {parameters} {closing}"


FORMAT = Format("qwen-coder", QwenCoderCalls, spelt=(BEGIN, FUNCTION, PARAMETER), marks=(BEGIN, END), call=_call, between=("\n",))
SEED_FORMAT = replace(
    FORMAT, name="seed", spelt=(SEED, FUNCTION, PARAMETER), marks=(SEED, SEED_END), call=partial(_call, begin=SEED, end=SEED_END)
)
