"""DeepSeek V3, R1 and V3.1: a section of calls between control tokens. Reference: the chat templates of these models.

V3 and R1 write "function", the name and a fenced block of JSON; V3.1 writes the name and the JSON alone. Both are read; grammars
are written for one of them.
"""

from __future__ import annotations

from dataclasses import replace

from lacewing.assistant.tools.definitions import Tool
from lacewing.assistant.tools.format import Format
from lacewing.assistant.tools.lark import Lark
from lacewing.assistant.tools.parsing import NotACall, SectionParser, Steps

SECTION, SECTION_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
BEGIN, SEPARATOR, END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
FENCE, FENCE_END = "```json\n", "```"


class DeepseekCalls(SectionParser):
    marks = (SECTION, BEGIN)

    section, begin, section_end = SECTION, BEGIN, SECTION_END

    def one(self) -> Steps:
        source = self.source
        yield from self.expect(BEGIN)
        name = yield from source.until((SEPARATOR,))
        yield from source.literal(SEPARATOR)
        fenced = False
        if name is not None and name.strip() == "function":
            at = source.at
            inner = yield from source.until(("\n", "{"))
            yield from source.space()
            fenced = yield from source.literal(FENCE.strip())
            if fenced:
                name = inner
            else:
                source.at = at  # a tool of this name
        yield from source.space()
        if name is None or (yield from source.peek()) != "{":
            raise NotACall
        self.start(name.strip())
        yield from self.copy()
        if fenced:
            yield from source.sequence(FENCE_END)
        yield from source.sequence(END)


def _call(lark: Lark, tool: Tool) -> str:
    return f"{lark.spelt(BEGIN, tool.name, SEPARATOR)} {lark.arguments(tool)} {lark.spelt(END)}"


def _fenced_call(lark: Lark, tool: Tool) -> str:
    begin = lark.spelt(BEGIN, "function", SEPARATOR, f"{tool.name}\n{FENCE}")
    return f"{begin} {lark.arguments(tool)} {lark.spelt(chr(10) + FENCE_END, END)}"


def _told(call: str) -> str:
    return (
        "## Tools\n\nYou can call these functions:\n{tools}\n\n"
        f"To call functions, write exactly in this form:\n{SECTION}{BEGIN}{call}{END}{SECTION_END}\n"
        "where {} is a JSON object of the arguments. Repeat the part from "
        f"{BEGIN} to {END} to call several."
    )


FORMAT = Format(
    "deepseek", DeepseekCalls, spelt=(SECTION,), marks=(SECTION, SECTION_END, BEGIN, SEPARATOR, END), call=_call,
    opening=(SECTION,), closing=(SECTION_END,), told=_told(f"the name{SEPARATOR}{{}}"),
)  # fmt: skip
FENCED = replace(
    FORMAT,
    name="deepseek-v3",
    spelt=(SECTION, "```json"),
    call=_fenced_call,
    between=("\n",),
    told=_told(f"function{SEPARATOR}the name\n{FENCE}{{}}\n{FENCE_END}"),
)
