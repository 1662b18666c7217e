"""gpt-oss (harmony): messages in channels; a call is a message to a function. Reference: OpenAI's harmony response format."""

from __future__ import annotations

import re
from collections.abc import Generator

from lacewing.assistant.tools.definitions import Tool
from lacewing.assistant.tools.format import Format
from lacewing.assistant.tools.lark import Lark, Thoughts
from lacewing.assistant.tools.parsing import END, MARKUP, REASONING, TEXT, Parser, Steps
from lacewing.text.marks import first_of, partial

CHANNEL, MESSAGE, CONSTRAIN = "<|channel|>", "<|message|>", "<|constrain|>"
CALL, START = "<|call|>", "<|start|>"
ENDS = ("<|end|>", "<|return|>", CALL, START, CHANNEL)
LONGEST_HEADER = 200  # characters; longer is no header
_RECIPIENT = re.compile(r"\bto=(?:functions\.)?(?P<name>[^\s<]+)")


class HarmonyCalls(Parser):
    """Reads the whole answer: what goes to the channel "final" is text, a message to a function a call, all else thoughts.

    Text in "commentary" to nobody is for the user, who reads it before the calls.
    """

    def run(self) -> Steps:
        yield
        while True:
            yield from self.source.space()
            self.emit(MARKUP)
            if not self.source.text:
                return
            header = yield from self._header()
            name = self._called_by(header)
            yield from self.source.space()
            if name is not None and (yield from self.source.peek()) == "{":
                self._started = False
                self.start(name)
                yield from self.copy(ENDS)
                self.emit(END)
                yield from self._body(REASONING)
            else:
                yield from self._body(_kind(header), headless=header is None)

    def _header(self) -> Generator[None, None, str | None]:
        """Reads up to the text of a message; None, and nothing is read, if the model speaks without channels."""
        source, begins = self.source, (*ENDS, MESSAGE, "to=", "assistant")
        while True:
            end = source.text.find(MESSAGE) + len(MESSAGE)
            header = source.text[:end] if end >= len(MESSAGE) else source.text
            whole = any(map(header.startswith, begins))
            if len(header) > LONGEST_HEADER or not (whole or any(mark.startswith(header) for mark in begins)):
                return None
            if whole and header.endswith(MESSAGE):
                source.at = end
                return header[: -len(MESSAGE)]
            if source.closed:
                if whole or (self._must and self.cut):
                    source.at = len(source.text)
                return None
            yield

    def _called_by(self, header: str | None) -> str | None:
        """The tool that a message goes to."""
        found = _RECIPIENT.search(header or "")
        return found["name"] if found is not None and found["name"] in self.tools else None

    def _body(self, kind: str, headless: bool = False) -> Steps:
        """A message up to the mark that ends it. `headless`: a mark that stands first begins no header, and is passed over."""
        source = self.source
        self.emit(MARKUP)
        while True:
            text = source.text
            end, mark = first_of(text, ENDS)
            if not mark:
                end = len(text) - (0 if source.closed else partial(text, ENDS))
            source.at = end
            self.emit(kind)
            headless = headless and not end
            if mark:
                source.at = 0 if mark == CHANNEL and not headless else len(mark)
                return self.emit(MARKUP)
            if source.closed:
                return
            yield


def _kind(header: str | None) -> str:
    channel = (header or "").rpartition(CHANNEL)[2].split()[:1] if CHANNEL in (header or "") else ["final"]
    to_user = channel == ["final"] or (channel == ["commentary"] and _RECIPIENT.search(header or "") is None)
    return TEXT if to_user else REASONING


def _call(lark: Lark, tool: Tool) -> str:
    begin = lark.spelt(CHANNEL, f"commentary to=functions.{tool.name} ", CONSTRAIN, "json", MESSAGE)
    return f"{begin} {lark.arguments(tool)} {lark.spelt(CALL)}"


FORMAT = Format(
    "harmony",
    HarmonyCalls,
    spelt=(CHANNEL, CALL),
    marks=(CHANNEL, MESSAGE, CONSTRAIN, *ENDS),
    call=_call,
    one_call=True,
    without_calls=(CHANNEL, "final", MESSAGE),
)
THOUGHTS = Thoughts((CHANNEL, "analysis", MESSAGE), ("<|end|>", START, "assistant"))
