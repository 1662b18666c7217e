"""DeepSeek V3.2 and V4: calls in DSML, whose parameters say whether they are strings. Reference: the encoding that they publish."""

from __future__ import annotations

from collections.abc import Generator

from lacewing.assistant.tools.definitions import TYPES, Tool
from lacewing.assistant.tools.format import Format
from lacewing.assistant.tools.lark import Lark, tagged
from lacewing.assistant.tools.parsing import Steps
from lacewing.assistant.tools.tagged import STRING, Parameter, TaggedCalls

MARK = "｜DSML｜"
BLOCKS = (f"<{MARK}function_calls>", f"<{MARK}tool_calls>")  # V3.2, V4
INVOKE, INVOKE_END = f'<{MARK}invoke name="', f"</{MARK}invoke>"
PARAMETER, PARAMETER_END = f'<{MARK}parameter name="', f"</{MARK}parameter>"


class DsmlCalls(TaggedCalls):
    marks = BLOCKS
    closing, followers = PARAMETER_END, (PARAMETER, INVOKE_END)

    def call(self) -> Steps:
        block = yield from self.source.one_of(BLOCKS)
        yield from self.invocations(INVOKE, INVOKE_END)
        yield from self.source.sequence(f"</{(block or '')[1:]}")

    def parameter(self, tool: Tool) -> Generator[None, None, Parameter | None]:
        source, at = self.source, self.source.at
        if (yield from source.sequence(PARAMETER)) and (name := (yield from source.until(('"',)))) is not None:
            rest = yield from source.one_of(('" string="true">', '" string="false">', '">'))
            if rest is not None:
                every = frozenset(TYPES)
                types = STRING if "true" in rest else every - STRING if "false" in rest else tool.types(name)
                return name, types
        source.at = at
        return None


def _call(lark: Lark, tool: Tool) -> str:
    def opening(name: str) -> tuple[str, ...]:
        return (f'{PARAMETER}{name}" string="{"true" if "string" in tool.types(name) else "false"}">',)

    begin = lark.spelt(f'{INVOKE}{tool.name}">\n')
    return f"{begin} {tagged(lark, tool, opening, (f'{PARAMETER_END}{chr(10)}',))} {lark.spelt(INVOKE_END + chr(10))}"


def _row(name: str, block: str) -> Format:
    word = block.rpartition(MARK)[2]
    return Format(
        name, DsmlCalls, spelt=(MARK, word), marks=(MARK,), call=_call,
        opening=(f"{block}\n",), closing=(f"</{block[1:]}",),
    )  # fmt: skip


FORMAT, FORMAT_V4 = _row("dsml", BLOCKS[0]), _row("dsml-v4", BLOCKS[1])
