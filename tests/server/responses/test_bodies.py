"""Bodies of any shape: refused, or made a prompt of; never a fault of ours."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from lacewing.assistant.reply import Assistant
from lacewing.errors import LacewingError
from lacewing.server.context import Context
from lacewing.server.events import Observers, Record
from lacewing.server.openai.requests import read
from lacewing.server.responses.create import ResponseExchange
from lacewing.server.responses.types import ResponseBody
from tests.server.serving import Limits, OneModel

KINDS = [
    "custom_tool_call",
    "custom_tool_call_output",
    "message",
    "function_call",
    "function_call_output",
    "reasoning",
    "item_reference",
    "input_text",
    "text",
    "function",
    "custom",
    "x",
]
NAMES = ["type", "role", "content", "text", "id", "call_id", "name", "arguments", "output", "summary", "tools", "format", "schema"]
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([*KINDS, "user", "assistant", "developer", ""]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)),
    max_leaves=8,
)
ITEM = st.fixed_dictionaries({"type": st.sampled_from(KINDS)}, optional={name: VALUES for name in NAMES[1:10]})
FIELDS = st.sampled_from(
    [
        "input",
        "instructions",
        "tools",
        "tool_choice",
        "text",
        "reasoning",
        "include",
        "metadata",
        "conversation",
        "store",
        "truncation",
    ]
)


@pytest.fixture(scope="module")
def assistant(model) -> Assistant:
    return Assistant(model.engine, model.tokenizer, model.template)


@given(st.dictionaries(FIELDS, VALUES, max_size=3), st.lists(ITEM, max_size=3))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_is_a_fault_of_ours(model, assistant, body, items):
    sent = json.dumps({"model": "tiny", "input": items or "Hello", **body}).encode()

    async def prepare() -> ResponseExchange:
        context = Context(OneModel(model), Limits(), Observers())
        made = ResponseExchange(context, await read(_request(sent), ResponseBody), Record("req", "/v1/responses"), "me", None)
        await made.load()
        return made

    class Served:
        worker = type("Worker", (), {"assistant": assistant})

    served: Any = Served()
    served.model = model
    try:
        (job,) = asyncio.run(prepare()).jobs(served)
        assert job.prompt.ids
    except LacewingError:
        pass


def _request(sent: bytes) -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": sent, "more_body": False}

    return Request({"type": "http", "method": "POST", "path": "/v1/responses", "headers": [], "query_string": b""}, receive)
