"""Bodies: size, kind, depth and counts, before anything parses them."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lacewing.server.security import bodies
from lacewing.server.security.bodies import DEPTH, VALUES, Bodies, json_problem
from tests.server.asking import ask, echo

APP = Bodies(echo, 1000)
JSON = {"content-type": "application/json"}


def post(content: bytes | None = b"{}", app=APP, **headers: str):
    return ask(app, "POST", content=content, headers={**JSON, **{name.replace("_", "-"): value for name, value in headers.items()}})


def test_a_body_is_passed_on_whole():
    answer = post(b'{"a": [1, 2]}')
    assert answer.status_code == 200 and answer.content == b'{"a": [1, 2]}'
    assert post(b"no json at all").content == b"no json at all"  # whoever parses it tells what is wrong


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
def test_kinds_of_json(kind):
    assert post(content_type=kind).status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a", "application/jsonp"]
)
def test_what_a_page_may_send_unasked_is_refused(kind):
    answer = post(content_type=kind)
    assert answer.status_code == 415 and "application/json" in answer.json()["error"]["message"]


def test_what_is_cancelled_needs_no_body():
    assert ask(APP, "POST", "/v1/responses/resp_1/cancel").status_code == 200
    assert ask(APP, "POST", "/v1/responses/resp_1/cancel", content=b"{}").status_code == 415
    assert ask(APP, "POST", "/v1/responses/resp_1").status_code == 415


def test_compressed_bodies_are_refused():
    assert post(content_encoding="gzip").status_code == 415


def test_a_large_body_is_refused_by_its_length_alone():
    async def run():
        sent = []

        async def send(message):
            sent.append(message)

        async def receive():
            raise AssertionError("the body was read")

        scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", b"application/json")]}
        for length in (b"1001", b"9" * 400, b"-1", b"1e3", "١".encode()):
            await Bodies(echo, 1000)({**scope, "headers": [*scope["headers"], (b"content-length", length)]}, receive, send)
        return [message for message in sent if "status" in message]

    starts = asyncio.run(run())
    assert [start["status"] for start in starts] == [413] * 5
    assert all((b"connection", b"close") in start["headers"] for start in starts)


def test_a_large_body_without_a_length_is_refused():
    def pieces():
        for _ in range(50):
            yield b"x" * 30

    async def as_stream():
        for piece in pieces():
            yield piece

    answer = ask(APP, "POST", content=as_stream(), headers=JSON)
    assert answer.status_code == 413 and "1000 bytes" in answer.text
    assert post(b"x" * 1000).status_code == 200 and post(b"x" * 1001).status_code == 413


def test_a_client_that_goes_away_is_not_served():
    called = []

    async def app(scope, receive, send):
        called.append(scope)

    async def run():
        messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

        async def receive():
            return messages.pop(0)

        scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", b"application/json")]}
        await Bodies(app, 1000)(scope, receive, None)

    asyncio.run(run())
    assert not called


def test_after_the_body_comes_what_the_server_says():
    async def app(scope, receive, send):
        assert (await receive())["body"] == b"{}"
        assert (await receive())["type"] == "http.disconnect"

    async def run():
        messages = [{"type": "http.request", "body": b"{}", "more_body": False}, {"type": "http.disconnect"}]

        async def receive():
            return messages.pop(0)

        scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", b"application/json")]}
        await Bodies(app, 1000)(scope, receive, None)

    asyncio.run(run())


nested = st.recursive(
    st.none() | st.integers() | st.text() | st.text('"\\[]{},', max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('a"\\[{,', max_size=5), inner, max_size=3),
    max_leaves=30,
)


def depth_of(value) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth_of, inner), default=0) if isinstance(value, (dict, list)) else 0


@settings(max_examples=50)
@given(nested, st.booleans())
def test_depth_is_that_of_the_value(value, plain):
    """Brackets within strings are none, however they are escaped."""
    body, depth = json.dumps(value, ensure_ascii=plain).encode(), depth_of(value)
    wrapped = b"[" * (DEPTH - depth) + body + b"]" * (DEPTH - depth)
    assert not json_problem(wrapped)
    assert "deep" in json_problem(b"[" + wrapped + b"]") or not depth + DEPTH - depth


def test_deep_and_many():
    assert "deep" in json_problem(b"[" * (DEPTH + 1))
    assert not json_problem(b"[" * DEPTH + b"]" * DEPTH)
    assert "values" in json_problem(b"[0" + b",0" * (VALUES + 1) + b"]")
    assert not json_problem(b"[0" + b",0" * VALUES + b"]")
    app = Bodies(echo, 8 << 20)
    assert post(b"[" * 100_000, app).json()["error"]["code"] == "invalid_json"
    assert post(b"[0" + b",0" * (VALUES + 1) + b"]", app).status_code == 400
    assert post(json.dumps([list(range(1000))] * 200).encode(), app).status_code == 200


HOSTILE = {
    "a string without an end": b'"' + b'\\"' * (2 << 20),
    "backslashes": b'"' + b"\\" * (4 << 20) + b"x",
    "quotes": b'"' * (4 << 20),
    "empty arrays": b"[]" * (2 << 20),
    "a long string": b'["' + b"a" * (4 << 20) + b'"]',
    "a name for each value": b'{"a":1},' * (1 << 19),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_the_check_is_linear(name):
    """Twice the body takes about twice the time, and 4 MiB not long."""
    seconds = []
    for body in (HOSTILE[name][: 1 << 20], HOSTILE[name]):
        began = time.process_time()
        json_problem(body)
        seconds.append(time.process_time() - began)
    assert seconds[1] < 4 * 3 * seconds[0] + 0.2 and seconds[1] < 3


def test_large_bodies_are_checked_beside_the_event_loop(monkeypatch):
    import threading

    threads = []
    monkeypatch.setattr(bodies, "json_problem", lambda body: threads.append(threading.current_thread()) or "")
    for size in (bodies._LARGE - 400, bodies._LARGE + 400):
        post(b"[" * size, Bodies(echo, 1 << 20))
    assert threads[0] is threading.main_thread() and threads[1] is not threading.main_thread()


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "GET"])
def test_bodies_of_every_method_are_checked(method):
    """A method that a path does not take is for the routes to refuse, once no body is in the way."""
    assert ask(APP, method).status_code == 200
    assert ask(APP, method, headers={"content-length": "0"}).status_code == 200
    assert ask(APP, method, content=b"x" * 2000, headers=JSON).status_code == 413
    assert ask(APP, method, content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    assert ask(APP, method, headers={"content-type": "text/plain", "transfer-encoding": "chunked"}).status_code == 415
