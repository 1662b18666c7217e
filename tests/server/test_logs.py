"""Logs: a line a request, whatever it holds; ids that clients bring; prompts only when somebody wants them."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lacewing.server import logs
from lacewing.server.events import Record
from lacewing.server.logs import Requests, configure, escaped
from lacewing.server.security.bodies import Bodies
from tests.server.asking import ask, echo


def logged(form: str, work, level: int = logging.INFO) -> list[str]:
    stream = io.StringIO()
    undo = configure(form, level, stream)
    try:
        work()
    finally:
        undo()
    return stream.getvalue().splitlines()


def test_what_programs_ask_again_and_again_is_logged_only_if_it_fails():
    requests = Requests()
    for path in ("/v1/models", "/models/changes/change_1"):
        assert not logged("text", lambda path=path: ask(requests.around(echo), path=path))
    assert logged("text", lambda: ask(requests.around(echo), "POST", path="/models", content=b"x"))
    assert logged("text", lambda: ask(requests.around(echo), path="/v1/other"))


def test_a_request_is_a_line_of_json():
    told = []
    requests = Requests(told.append)

    async def app(scope, receive, send):
        record = Record(
            scope["state"]["request_id"], scope["path"], "m", prompt_tokens=3, generated_tokens=2, finish_reasons=["stop"]
        )
        requests.finished(record)
        await echo(scope, receive, send)

    lines = logged("json", lambda: ask(requests.around(app), path="/v1/x", headers={"x-request-id": "mine-1"}))
    (found,) = map(json.loads, lines)
    expected = {"level": "info", "message": "request", "request": "mine-1", "method": "GET", "status": 200, "model": "m"}
    assert expected.items() <= found.items() and found["generated_tokens"] == 2 and found["finish"] == "stop"
    assert told == [200] and not requests._costs


@pytest.mark.parametrize(
    ("given", "kept"), [("mine-1", True), ("a b", False), ("x" * 129, False), ("\x1b[31m", False), ("", False)]
)
def test_ids_go_back_where_they_are_plain(given, kept):
    answer = ask(Requests().around(echo), headers={"x-request-id": given})
    found = answer.headers["x-request-id"]
    assert answer.headers["request-id"] == found  # where Anthropic's clients look for it
    assert (found == given) is kept and (kept or found.startswith("req_"))


def test_requests_with_the_same_id_do_not_fail():
    requests = Requests()
    inner = Requests.around

    async def twice(scope, receive, send):
        await inner(requests, echo)({**scope, "state": {}}, receive, send)

    assert ask(requests.around(twice), headers={"x-request-id": "same"}).status_code == 200


def test_health_and_metrics_are_asked_too_often_to_be_told():
    app = Requests().around(echo)
    assert not logged("text", lambda: [ask(app, path=path) for path in ("/health", "/metrics")])
    assert len(logged("text", lambda: ask(app, path="/health"), logging.DEBUG)) == 1


@given(st.text(max_size=60))
def test_nothing_begins_a_line_or_turns_it(text):
    line = escaped(text)
    assert line.isprintable() or not line


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_a_request_holds_is_escaped(form):
    hostile = "/x\x1b[2J\nERROR forged\u202e\u2028\x7f"

    def work():
        logging.getLogger(logs.NAME).info("request", extra={"path": hostile})
        try:
            raise ValueError("a\nb\x1b")
        except ValueError:
            logging.getLogger(logs.NAME).exception("failed")

    lines = logged(form, work)
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("ERROR") for line in lines) and "forged" in lines[0]
    if form == "json":
        assert json.loads(lines[0])["path"] == hostile and len(lines) == 2


def test_prompts_are_logged_when_somebody_wants_them():
    body = {"content": b'{"prompt": "secret"}', "headers": {"content-type": "application/json"}}
    for wanted in (False, True):
        app = Requests().around(Bodies(echo, 1000, wanted))
        lines = logged("json", lambda app=app: ask(app, "POST", **body), logging.DEBUG)
        assert any("secret" in line for line in lines) is wanted


def test_what_fails_is_told_in_the_log():
    async def broken(scope, receive, send):
        raise RuntimeError("no")

    def work():
        with pytest.raises(RuntimeError):
            ask(Requests().around(broken))

    (line,) = logged("json", work)
    assert json.loads(line)["status"] == 499


def test_undoing_leaves_no_handler():
    before = [list(logging.getLogger(name).handlers) for name in (logs.NAME, "uvicorn.error")]
    logged("text", lambda: None)
    assert before == [list(logging.getLogger(name).handlers) for name in (logs.NAME, "uvicorn.error")]
