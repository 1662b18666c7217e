"""GLM 4.5 and later: keys and values between tags. Reference: the chat templates of these models."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from functools import partial

from lacewing.assistant.tools.definitions import Tool
from lacewing.assistant.tools.format import Format
from lacewing.assistant.tools.lark import Lark, tagged
from lacewing.assistant.tools.parsing import NotACall, Steps
from lacewing.assistant.tools.tagged import Parameter, TaggedCalls

BEGIN, END = "<tool_call>", "</tool_call>"
KEY, KEY_END, VALUE, VALUE_END = "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"


class GlmCalls(TaggedCalls):
    marks = (BEGIN,)
    closing, followers = VALUE_END, (KEY, END)

    def call(self) -> Steps:
        source = self.source
        yield from self.expect(BEGIN)
        name = ((yield from source.until((KEY, END))) or "").strip()
        if not name:
            raise NotACall
        self.start(name)
        yield from self.parameters(self.tools[name])
        yield from source.sequence(END)

    def parameter(self, tool: Tool) -> Generator[None, None, Parameter | None]:
        source, at = self.source, self.source.at
        name = (yield from source.until((KEY_END,))) if (yield from source.sequence(KEY)) else None
        if name is not None and (yield from source.sequence(KEY_END, VALUE)):
            return name.strip(), tool.types(name.strip())
        source.at = at
        return None


def _call(lark: Lark, tool: Tool, gap: str = "\n") -> str:
    parameters = tagged(lark, tool, lambda name: (KEY, name, KEY_END, gap, VALUE), (VALUE_END, gap))
    return f"{lark.spelt(BEGIN, tool.name, gap)} {parameters} {lark.spelt(END)}"


FORMAT = Format(
    "glm", GlmCalls, spelt=(KEY,), marks=(BEGIN, END, KEY, KEY_END, VALUE, VALUE_END), call=_call,
    between=("\n",),
)  # fmt: skip
# GLM 4.7 and later, without line breaks.
TIGHT = replace(FORMAT, name="glm-4.7", spelt=(f"{KEY_END}{VALUE}",), call=partial(_call, gap=""), between=())
