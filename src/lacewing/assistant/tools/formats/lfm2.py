"""LFM2 and LFM2.5: a list of calls as in Python between control tokens. Reference: Liquid's documentation, the chat templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lacewing.assistant.tools.format import Format
from lacewing.assistant.tools.parsing import Steps
from lacewing.assistant.tools.pythonic import PythonicCalls, spelling, written

BEGIN, END = "<|tool_call_start|>", "<|tool_call_end|>"


class LfmCalls(PythonicCalls):
    marks = (BEGIN,)

    def call(self) -> Steps:
        yield from self.expect(BEGIN)
        yield from self.listed()
        yield from self.source.sequence(END)


def _write(functions: Sequence[Mapping[str, Any]]) -> str:
    return f"{BEGIN}{written(functions)}{END}"


FORMAT = Format(
    "lfm2", LfmCalls, spelt=("<|tool_list_start|>",), marks=(BEGIN, END), call=spelling, write=_write,
    opening=(BEGIN, "["), between=(", ",), closing=("]", END),
)  # fmt: skip
LATER = replace(FORMAT, name="lfm2.5", spelt=("List of tools: [", "<|im_start|>"))
