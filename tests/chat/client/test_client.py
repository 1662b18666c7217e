"""Requests to servers of others, and what comes back or goes wrong."""

from __future__ import annotations

import contextlib
import json
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from lacewing.assistant.grammar.source import Grammar
from lacewing.assistant.options import ChatOptions
from lacewing.chat.client.answers import RemoteAnswer, models, request
from lacewing.chat.client.connection import Connection, ServerError
from lacewing.errors import Cancelled, ContextOverflowError, OptionError
from lacewing.options import Sampling
from tests.chat.client.foreign import Foreign, chunk, foreign
from tests.timing import in_time, timely

HELLO = [{"role": "user", "content": "Hello"}]
END = (chunk(finish_reason="stop"), "[DONE]")


@pytest.fixture
def server() -> Iterator[tuple[Connection, Foreign]]:
    with foreign() as (address, server):
        connection = Connection(f"{address}/v1/", "a key")
        yield connection, server
        connection.close()


def ask(connection, sampling=None, cancelled=bool, **more) -> RemoteAnswer:
    return RemoteAnswer(connection, request("theirs", HELLO, sampling or Sampling(), **more), cancelled)


def test_deltas_and_what_they_cost(server):
    connection, server = server
    usage = json.dumps(
        {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}}
    )
    thought = json.dumps({"choices": [{"delta": {"reasoning_content": "hm"}}]})
    server.lines = (chunk(), thought, chunk("Hel"), chunk("lo"), chunk(finish_reason="length"), usage, "[DONE]")
    answer = ask(connection)
    deltas = list(answer)
    assert [(str(each), each.reasoning) for each in deltas] == [("", "hm"), ("Hel", ""), ("lo", "")]
    assert answer.finish_reason == "length"
    assert (answer.stats.prompt_tokens, answer.stats.reused_tokens, answer.stats.generated_tokens) == (9, 4, 2)
    assert answer.stats.first_token_seconds > 0 and answer.stats.prompt_seconds > 0
    assert models(connection) == [{"id": "theirs"}]


def test_only_what_somebody_changed_is_sent(server):
    """A strict server refuses fields that it does not know."""
    connection, server = server
    server.lines = (chunk("x"), *END)
    assert "".join(ask(connection)) == "x"
    assert set(server.bodies[-1]) == {"model", "messages", "stream", "stream_options"}
    list(ask(connection, Sampling(temperature=0, max_tokens=3, stop=("a",), seed=5)))
    sent = server.bodies[-1]
    assert (sent["temperature"], sent["max_tokens"], sent["stop"], sent["seed"]) == (0, 3, ["a"], 5)
    with pytest.raises(ServerError, match="Unrecognized request argument: min_p"):
        list(ask(connection, Sampling(min_p=0.2)))


def test_fields_of_constraints_and_thoughts():
    options = ChatOptions(reasoning_effort="low", reasoning_budget=7, constraint=Grammar.json_schema({"type": "object"}))
    body = request("m", HELLO, Sampling(repeat_window=9, logit_bias={3: -1.0}), options)
    assert (body["reasoning_effort"], body["thinking_budget_tokens"], body["repeat_last_n"]) == ("low", 7, 9)
    assert body["logit_bias"] == {"3": -1.0} and body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    regex = request("m", HELLO, Sampling(), ChatOptions(constraint=Grammar.regex(r"a/b\/c")))
    assert regex["grammar"] == r"start: /a\/b\/c/"
    assert request("m", "Once", Sampling())["prompt"] == "Once"


@pytest.mark.parametrize(
    ("status", "body", "error", "text"),
    [
        (401, b"", ServerError, "wants an API key"),
        (400, b'{"error": {"message": "too long", "code": "context_length_exceeded"}}', ContextOverflowError, "too long"),
        (400, b'{"error": {"message": "big", "type": "exceed_context_size_error"}}', ContextOverflowError, "big"),
        (404, b'{"error": "model not found"}', ServerError, "model not found"),
        (422, b'{"detail": "bad"}', ServerError, "bad"),
        (500, b"<html>", ServerError, "status 500"),
        (200, b'{"object": "list"}', ServerError, "without a stream of events"),
    ],
)
def test_errors_before_an_answer(server, status, body, error, text):
    connection, server = server
    server.status, server.answer = status, body
    with pytest.raises(error, match=text):
        list(ask(connection))


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ((chunk("a"),), "ended the answer in the middle"),
        ((chunk("a"), '{"error": {"message": "it broke"}}'), "it broke"),
        ((chunk("a"), "{not JSON"), "cannot be read"),
        ((chunk("a"), "[1]"), "cannot be read"),
        ((chunk("a"), '{"choices": [7]}'), "cannot be read"),
        ((chunk("a"), '{"usage": {"prompt_tokens": 1e999}}'), "cannot be read"),
        ((chunk("a"), "[" * 100_000), "cannot be read"),
    ],
)
def test_errors_within_an_answer(server, lines, text):
    connection, server = server
    server.lines = lines
    answer = ask(connection)
    came = []
    with pytest.raises(ServerError, match=text):
        for delta in answer:
            came.append(str(delta))
    assert came == ["a"]


@timely
def test_cancelling_ends_the_stream_on_the_server_too(server):
    connection, server = server
    server.lines, server.broken = (chunk("a"),), None
    began: list[float] = []
    answer = ask(connection, cancelled=lambda: bool(began))
    for delta in answer:
        assert delta == "a"
        began.append(time.monotonic())
    seconds = time.monotonic() - began[0]
    assert answer.finish_reason == "cancelled" and server.gone.wait(2)
    server.gone.clear()
    in_time(seconds, 0.5)


def test_cancelling_needs_no_pause_between_the_pieces(server):
    connection, server = server
    server.lines = (*(chunk(f"{at} ") for at in range(20_000)), *END)
    came: list[str] = []
    answer = ask(connection, cancelled=lambda: len(came) >= 3)
    for delta in answer:
        came.append(str(delta))
    assert answer.finish_reason == "cancelled" and came == ["0 ", "1 ", "2 "]


def test_leaving_an_answer_ends_it_on_the_server(server):
    connection, server = server
    server.lines, server.broken = (chunk("a"),), None
    deltas = iter(ask(connection))
    assert next(deltas) == "a"
    deltas.close()
    assert server.gone.wait(2)


def test_a_question_can_be_cancelled(server):
    connection, server = server
    server.broken = None
    with pytest.raises(Cancelled):
        connection.ask("POST", "/v1/chat/completions", {"stream": True}, cancelled=lambda: True)
    assert server.gone.wait(2)
    assert connection.ask("GET", "/v1/models")["data"]


@pytest.mark.parametrize("address", ["", "http://", "ftp://here", "http://a b", "http://h:99999", "http://h/?q=1", "http://[::1"])
def test_addresses_that_are_none(address):
    with pytest.raises(OptionError, match="is not the address of a server"):
        Connection(address)


def test_an_address_with_a_password():
    """It would be printed, and kept in session files."""
    with pytest.raises(OptionError, match="--server-key") as told:
        Connection("http://me:s3cret@localhost")
    assert "s3cret" not in str(told.value)


def test_a_key_that_cannot_be_sent():
    with pytest.raises(OptionError, match="API key"):
        Connection("localhost", "clé")


@pytest.mark.parametrize(
    ("given", "root"),
    [
        ("localhost:8080", "http://localhost:8080"),
        ("https://a.example/v1/", "https://a.example"),
        ("http://h/sub/v1", "http://h/sub"),
    ],
)
def test_addresses(given, root):
    connection = Connection(given)
    assert connection.address == root
    connection.close()


@contextlib.contextmanager
def answering(data: bytes) -> Iterator[str]:
    """The address of something that answers whatever it is sent with `data`."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(data)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()
        thread.join()


@pytest.mark.parametrize("work", [models, lambda connection: list(ask(connection))])
@pytest.mark.parametrize(
    ("scheme", "data", "text"),
    [
        ("http", b"220 mail.example ESMTP\r\n", r"no HTTP comes from http://127.0.0.1:\d+ .*the address of a model server"),
        ("http", b"\x15\x03\x03\x00\x02\x02\x46", r"if it is one of https, write https://"),
        ("https", b"HTTP/1.1 400 Bad Request\r\n\r\n", r"no TLS .* write http://127.0.0.1:\d+"),
        (
            "http",
            b"HTTP/1.1 302 Found\r\nLocation: https://other.example/v1/models\r\nContent-Length: 0\r\n\r\n",
            r"redirects to https://other.example/v1/models, which is not followed; give --server the address itself",
        ),
    ],
)
def test_what_is_no_model_server(work, scheme, data, text):
    with answering(data) as place:
        connection = Connection(f"{scheme}://{place}")
        with pytest.raises(ServerError, match=text):
            work(connection)
        connection.close()


@pytest.mark.parametrize(
    ("work", "kind"), [(models, b"application/json"), (lambda connection: list(ask(connection)), b"text/event-stream")]
)
def test_an_answer_without_an_end_is_not_read_for_ever(work, kind, monkeypatch):
    monkeypatch.setattr("lacewing.chat.client.connection.MAX_ANSWER_BYTES", 5000)
    data = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nConnection: close\r\n\r\n" % kind + b" " * 6000
    with answering(data) as place:
        connection = Connection(place)
        with pytest.raises(ServerError, match=r"more than 4\.9 KiB; the rest was not read"):
            work(connection)
        connection.close()


def test_nobody_is_there():
    connection = Connection("http://127.0.0.1:1")
    with pytest.raises(ServerError, match=r"no server answers at http://127.0.0.1:1 .*lacewing serve"):
        models(connection)
    connection.close()
