"""Streams of messages that do not end well, and bodies of any shape."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from lacewing.server.app import create_app
from lacewing.server.options import ServerOptions
from lacewing.server.security import guarded
from lacewing.server.security.binding import Binding
from tests.server.asking import ask
from tests.server.scripted import Scripted
from tests.server.serving import Limits, OneModel, running
from tests.server.test_disconnects import LONG, Watch, gone, leave, send, until

PATH = "/v1/messages"
HELLO = [{"role": "user", "content": "Write about the sea."}]


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("content", ["Count.", LONG])
def test_clients_that_leave(model, stream, how, content):
    registry, watch = Scripted(model), Watch()
    registry.assistant.script = "word " * 1000
    model.engine.forget()
    with running(registry, [watch]) as url:
        connection = send(url, content, stream=stream, max_tokens=2000, path=PATH)
        until(lambda: watch.running and (content is LONG or watch.records[0].last_token))
        leave(connection, how)
        gone(watch, registry)


def test_pings_while_a_prompt_is_read(model):
    model.engine.forget()
    with running(OneModel(model), ping_seconds=0.02) as url:
        sent = {"model": "tiny", "max_tokens": 2, "stream": True, "messages": [{"role": "user", "content": "word " * 500}]}
        text = httpx.post(f"{url}{PATH}", json=sent, timeout=60).text
    assert text.startswith(': still working\n\nevent: ping\ndata: {"type":"ping"}\n\n')
    assert text.endswith('event: message_stop\ndata: {"type":"message_stop"}\n\n')


def test_an_error_within_a_stream(model):
    registry = Scripted(model)
    registry.assistant.script = "again and " * 4000  # does not end by itself before the time is over
    with running(registry, request_seconds=0.4, ping_seconds=0.05) as url:
        sent = {"model": "tiny", "max_tokens": 4000, "stream": True, "messages": [{"role": "user", "content": "Count to 1000."}]}
        response = httpx.post(f"{url}{PATH}", json=sent, timeout=60)
    name, line = response.text.rstrip().rsplit("\n\n", 1)[1].split("\n")
    told = json.loads(line.removeprefix("data: "))
    assert (name, told["type"], told["error"]["type"]) == ("event: error", "error", "timeout_error")


@pytest.fixture(scope="module")
def guarded_app(model):
    options = ServerOptions(api_keys=("a-key-of-sixteen",), body_bytes=5000, allow_paths=True)
    app = create_app(OneModel(model), Limits())
    return guarded(app, options, Binding("127.0.0.1", 8080, False))


@pytest.mark.parametrize(
    ("headers", "content", "status", "kind"),
    [
        ({}, b"{}", 401, "authentication_error"),
        ({"x-api-key": "another"}, b"{}", 401, "authentication_error"),
        ({"x-api-key": "a-key-of-sixteen"}, b"{}", 400, "invalid_request_error"),
        ({"authorization": "Bearer a-key-of-sixteen"}, b"{}", 400, "invalid_request_error"),
        ({"x-api-key": "a-key-of-sixteen"}, b" " * 6000, 413, "request_too_large"),
        ({"x-api-key": "a-key-of-sixteen"}, b"[" * 200, 400, "invalid_request_error"),
        ({"x-api-key": "a-key-of-sixteen", "content-type": "text/plain"}, b"{}", 415, "invalid_request_error"),
    ],
)
def test_what_stands_before_the_api_speaks_as_the_api(guarded_app, headers, content, status, kind):
    response = ask(guarded_app, "POST", PATH, content=content, headers={"content-type": "application/json", **headers})
    told = response.json()
    assert (response.status_code, told["type"], told["error"]["type"]) == (status, "error", kind)


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.text(max_size=3), st.just("text"), st.just("tool_use"))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["type", "text", "role", "content", "id", "name", "input", "source"]), inner, max_size=4),
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from(["messages", "system", "tools", "tool_choice", "thinking", "output_config", "stop_sequences", "metadata"])


@given(st.dictionaries(FIELDS, VALUES, max_size=3))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_is_a_fault_of_ours(model, body):
    """Bodies of any shape are refused, or make a prompt."""
    from lacewing.errors import LacewingError
    from lacewing.server.anthropic.types import PromptBody
    from lacewing.server.openai.requests import read

    sent = json.dumps({"model": "tiny", "messages": HELLO, **body}).encode()
    try:
        found = asyncio.run(read(_request(sent), PromptBody))
        assert found.prompt(_assistant(model)).ids
    except LacewingError:
        pass


def _request(sent: bytes) -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": sent, "more_body": False}

    return Request({"type": "http", "method": "POST", "path": PATH, "headers": [], "query_string": b""}, receive)


_ASSISTANTS: dict[int, Any] = {}


def _assistant(model):
    from lacewing.assistant.reply import Assistant

    if id(model) not in _ASSISTANTS:
        _ASSISTANTS[id(model)] = Assistant(model.engine, model.tokenizer, model.template)
    return _ASSISTANTS[id(model)]
