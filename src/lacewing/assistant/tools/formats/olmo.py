"""OLMo 3: calls as in Python, one a line, between tags. Reference: its chat template."""

from __future__ import annotations

from lacewing.assistant.tools.format import Format
from lacewing.assistant.tools.parsing import Steps
from lacewing.assistant.tools.pythonic import PythonicCalls, spelling

BEGIN, END = "<function_calls>", "</function_calls>"


class OlmoCalls(PythonicCalls):
    marks = (BEGIN,)

    def call(self) -> Steps:
        yield from self.expect(BEGIN)
        yield from self.listed()
        yield from self.source.sequence(END)


FORMAT = Format(
    "olmo", OlmoCalls, spelt=(BEGIN, END), marks=(BEGIN, END), call=spelling,
    opening=(BEGIN, "\n"), between=("\n",), closing=("\n", END),
)  # fmt: skip
