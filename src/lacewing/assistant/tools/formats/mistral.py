"""Mistral: a control token, then a list of JSON objects, or name and arguments. Reference: chat templates, mistral-common."""

from __future__ import annotations

import secrets
import string
from dataclasses import replace

from lacewing.assistant.tools.definitions import Tool
from lacewing.assistant.tools.format import Format, head
from lacewing.assistant.tools.history import short_id
from lacewing.assistant.tools.json_calls import JsonCalls
from lacewing.assistant.tools.lark import Lark
from lacewing.assistant.tools.parsing import NotACall, Steps

BEGIN, CALL_ID, ARGS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"


class MistralCalls(JsonCalls):
    marks = (BEGIN,)

    def call(self) -> Steps:
        source = self.source
        yield from self.expect(BEGIN)
        yield from source.space()
        if (yield from source.peek()) in ("[", "{"):  # no name begins so
            yield from self.objects(loose=False)
            return
        name = yield from source.until((CALL_ID, ARGS, "{"))
        id = None
        if (yield from source.literal(CALL_ID)):
            id = yield from source.until((ARGS, "{"))
        yield from source.literal(ARGS)
        yield from source.space()
        if (yield from source.peek()) != "{" or name is None:
            raise NotACall
        self.start(name.strip(), id.strip() if id else None)
        yield from self.copy()


def make_id(name: str, index: int) -> str:
    """9 letters and digits."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(9))


def _listed(lark: Lark, tool: Tool) -> str:
    return f"{lark.spelt(head(tool, 'arguments'))} {lark.arguments(tool)} {lark.spelt('}')}"


def _named(lark: Lark, tool: Tool) -> str:
    return f"{lark.spelt(BEGIN, tool.name, ARGS)} {lark.arguments(tool)}"


def _with_id(lark: Lark, tool: Tool) -> str:
    return f"{lark.spelt(BEGIN, tool.name, CALL_ID)} /[a-zA-Z0-9]{{9}}/ {lark.spelt(ARGS)} {lark.arguments(tool)}"


LISTED = Format(
    "mistral", MistralCalls, spelt=(BEGIN,), marks=(BEGIN, CALL_ID, ARGS), call=_listed, make_id=make_id, past_id=short_id,
    opening=(BEGIN, "["), between=(", ",), closing=("]",),
)  # fmt: skip
NAMED = replace(LISTED, name="mistral-args", spelt=(BEGIN, ARGS), call=_named, opening=(), between=(), closing=())
WITH_ID = replace(NAMED, name="mistral-id", spelt=(BEGIN, CALL_ID, ARGS), call=_with_id)
