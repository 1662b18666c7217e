"""Clients that leave: at once, while their prompt is read, in the queue, in the middle of an answer; streamed or not."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from lacewing.server.events import Observer, Record
from tests.server.serving import OneModel, running
from tests.timing import in_time, timely

NOTICED = 0.5  # seconds
LONG = "word " * 7000


class Watch(Observer):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.records: list[Record] = []
        self.waiting = self.running = self.over = 0

    def received(self, record: Record) -> None:
        self.records.append(record)
        self.waiting += 1

    def started(self, record: Record) -> None:
        self.waiting, self.running = self.waiting - 1, self.running + 1

    def finished(self, record: Record) -> None:
        self.over += 1


def until(true, seconds: float = 20.0) -> float:
    """Seconds that it takes to become true."""
    began = time.perf_counter()
    while not true():
        assert time.perf_counter() - began < seconds, "it does not become true"
        time.sleep(0.002)
    return time.perf_counter() - began


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def server(model, watch) -> Iterator[tuple[str, OneModel]]:
    registry = OneModel(model)
    model.engine.forget()
    with running(registry, [watch]) as url:
        yield url, registry


def send(
    url: str, content: str, *, stream: bool, max_tokens: int = 4000, path: str = "/v1/chat/completions", **more
) -> socket.socket:
    """A request on a connection of its own."""
    host, port = url.removeprefix("http://").split(":")
    sent = {"messages": [{"role": "user", "content": content}], "stream": stream, "max_tokens": max_tokens, "ignore_eos": True}
    body = json.dumps(sent | {"model": "tiny", "repeat_guard": 0} | more).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    connection = socket.create_connection((host, int(port)))
    connection.sendall(head.encode() + body)
    return connection


def leave(connection: socket.socket, how: str) -> None:
    if how == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if how == "half":
        connection.shutdown(socket.SHUT_WR)
    else:
        connection.close()


def gone(watch: Watch, registry: OneModel) -> float:
    """Nothing of it is left in the engine soon after it was noticed; the seconds until it was."""
    seconds = until(lambda: watch.over == len(watch.records))
    assert {record.status for record in watch.records} == {499}
    worker = registry.served.worker
    until(lambda: not worker.active and not worker.queue.running)
    scheduler = registry.model.engine.scheduler
    assert not scheduler.running and not scheduler.waiting and not worker.queue.waiting
    return seconds


@pytest.mark.parametrize("how", ["close", "reset", "half"])
@pytest.mark.parametrize("stream", [True, False])
@timely
def test_in_the_middle_of_an_answer(server, watch, stream, how):
    url, registry = server
    watch.begin()
    connection = send(url, "Count.", stream=stream)
    until(lambda: watch.records and watch.records[0].last_token)
    leave(connection, how)
    seconds = gone(watch, registry)
    assert 0 < watch.records[0].generated_tokens < 4000
    connection.close()
    in_time(seconds, NOTICED)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("stream", [True, False])
@timely
def test_while_a_prompt_is_read(server, watch, model, stream, how):
    url, registry = server
    watch.begin()
    model.engine.forget()
    connection = send(url, LONG, stream=stream)
    until(lambda: watch.running and any(task.sequence and task.sequence.ids for task in model.engine.scheduler.running))
    leave(connection, how)
    seconds = gone(watch, registry)
    assert watch.records[0].generated_tokens == 0
    in_time(seconds, NOTICED)


@pytest.mark.parametrize("stream", [True, False])
@timely
def test_in_the_queue(server, watch, model, stream):
    url, registry = server
    watch.begin()
    places = model.engine.step.limits.rows
    running = [send(url, f"Count to {each}.", stream=True) for each in range(places)]
    until(lambda: watch.running == places)
    waiting = [send(url, "Then I.", stream=stream) for _ in range(3)]
    until(lambda: registry.served.worker.queue.waiting == 3)
    for connection in waiting:
        leave(connection, "reset")
    seconds = until(lambda: watch.over == 3)
    assert registry.served.worker.queue.waiting == 0 and watch.running == places
    for connection in running:
        leave(connection, "close")
    in_time(max(seconds, gone(watch, registry)), NOTICED)


def test_one_that_leaves_takes_nobody_along(server, watch):
    url, _ = server
    stays = send(url, "Count.", stream=False, max_tokens=60)
    for _ in range(5):
        leaves = send(url, LONG, stream=True)
        time.sleep(0.05)
        leave(leaves, "reset")
    answer = b""
    while not answer.endswith(b"}}") and (part := stays.recv(1 << 16)):
        answer += part
    assert answer.startswith(b"HTTP/1.1 200") and b'"finish_reason":"length"' in answer
    stays.close()


def test_before_the_request_is_complete(server, watch, model):
    url, _ = server
    connection = send(url, "x", stream=True)
    connection.close()
    part = send(url, "y", stream=True)
    part.close()
    until(lambda: watch.over == len(watch.records))
    host, port = url.removeprefix("http://").split(":")
    half = socket.create_connection((host, int(port)))
    half.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n{")
    half.close()
    until(lambda: not model.engine.scheduler.running)
