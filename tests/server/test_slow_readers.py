"""Clients that do not read, on real sockets: their text waits as one piece, within limits, and nobody else does."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.server.serving import OneModel, running
from tests.server.test_disconnects import Watch, until

# Of each token the likeliest twenty are told, about 2 KB: so few tokens fill what systems and transports keep.
BODY = {"stream": True, "temperature": 0, "ignore_eos": True, "logprobs": True, "top_logprobs": 20, "model": "tiny",
        "repeat_guard": 0}  # fmt: skip


@pytest.fixture
def small_buffers(monkeypatch) -> None:
    """As on a machine with little memory: a listening socket hands its limit on to its connections."""
    listen = socket.socket.listen

    def limited(self, *backlog):
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        return listen(self, *backlog)

    monkeypatch.setattr(socket.socket, "listen", limited)


def ask(url: str, content: str, max_tokens: int, **options: object) -> socket.socket:
    """On a connection that takes little at a time."""
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps(BODY | {"messages": [{"role": "user", "content": content}], "max_tokens": max_tokens} | options).encode()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, int(port)))
    connection.settimeout(60)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def read(connection: socket.socket) -> bytes:
    """All that is left; the connection is closed."""
    received = b""
    with connection, contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            received += part
    return received


def deltas(answer: bytes) -> Iterator[dict]:
    text = b"".join(_chunks(answer.partition(b"\r\n\r\n")[2]))
    for line in text.split(b"\n\n"):
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])


def _chunks(body: bytes) -> Iterator[bytes]:
    """Of a body in chunks."""
    while body:
        size, _, body = body.partition(b"\r\n")
        yield body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]


def told(answer: bytes) -> tuple[str, int]:
    """The whole text, and of how many tokens log-probabilities were told."""
    choices = [choice for delta in deltas(answer) for choice in delta["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    return text, sum(len((choice.get("logprobs") or {}).get("content") or ()) for choice in choices)


def test_one_that_reads_late_gets_all_of_it_in_few_pieces(model, small_buffers):
    watch, registry, count = Watch(), OneModel(model), 150
    with running(registry, [watch], write_seconds=60) as url:
        at_once = read(ask(url, "Count.", count))
        late = ask(url, "Count.", count)
        until(lambda: len(watch.records) == 2 and watch.records[1].generated_tokens == 0 and watch.running == 2)
        until(lambda: not registry.served.worker.active, 60)  # the engine has said it all, and does not wait
        assert watch.over == 1
        answer = read(late)
    assert told(answer) == told(at_once) and told(answer)[1] > 100  # some are marks without text
    assert len(list(deltas(answer))) < len(list(deltas(at_once))) and answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert watch.records[1].status == 200


def test_one_that_reads_nothing_is_cut_off_and_nobody_else_waits(model, small_buffers):
    watch, registry = Watch(), OneModel(model)
    with running(registry, [watch], write_seconds=0.5) as url:
        stuck = ask(url, "Count.", 4000)
        until(lambda: watch.running)
        other, longest, last = ask(url, "Say a word.", 60, logprobs=False, top_logprobs=None), 0.0, time.perf_counter()
        answer = b""
        while part := other.recv(1 << 12):
            answer, longest, last = answer + part, max(longest, time.perf_counter() - last), time.perf_counter()
        other.close()
        assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n") and longest < 10  # on a busy machine
        until(lambda: watch.over == 2, 60)
        cut = watch.records[0]
        assert cut.status == 408 and "read nothing for 0.5 s" in str(cut.error)
        assert 0 < cut.generated_tokens < 4000
        until(lambda: not registry.served.worker.active)
        assert not model.engine.scheduler.running
        assert b"[DONE]" not in read(stuck)  # it is not said to be whole


def test_many_that_read_nothing_take_little_memory(model, small_buffers):
    watch, registry, process = Watch(), OneModel(model), psutil.Process()
    with running(registry, [watch], write_seconds=0.3) as url:

        def round_of(count: int) -> None:
            before = watch.over
            stuck = [ask(url, f"Count to {each}.", 4000) for each in range(count)]
            until(lambda: watch.over == before + count, 120)
            for connection in stuck:
                connection.close()

        for _ in range(3):
            round_of(6)  # what is made once: threads, pages of the KV cache
        grown = []
        for _ in range(3):  # what answers take comes again in each round; what the rest of the process does in between, does not
            before = process.memory_info().rss
            round_of(6)
            grown.append(process.memory_info().rss - before)
        assert min(grown) < 6 * (1 << 20)
        assert {record.status for record in watch.records} == {408}
