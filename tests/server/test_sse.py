"""Event streams: signs of life while nothing comes, and clients that do not read."""

from __future__ import annotations

import asyncio
import time

import pytest

from lacewing.server.sse import EventStream, SlowReaderError
from tests.server.serving import OneModel, running
from tests.server.test_disconnects import LONG, Watch, send, until


def test_comments_come_while_nothing_else_does():
    async def run() -> list[dict]:
        sent: list[dict] = []

        async def take(message: dict) -> None:
            sent.append(message)

        events = EventStream(take, ping=0.02, patience=1)
        await asyncio.sleep(0.05)
        events.note("reading\nweights", 1, 2)
        await asyncio.sleep(0.03)
        await events.write(b"data: 1\n\n")
        await events.end(b"data: 2\n\n")
        await asyncio.sleep(0.05)
        return sent

    start, *bodies = asyncio.run(run())
    assert start["status"] == 200 and dict(start["headers"])[b"cache-control"] == b"no-cache"
    said = [each["body"] for each in bodies]
    assert said[0] == b": still working\n\n" and b": reading weights 1 of 2\n\n" in said
    assert said[-2:] == [b"data: 1\n\n", b"data: 2\n\n"] and [each["more_body"] for each in bodies[-2:]] == [True, False]


def test_nothing_is_sent_before_there_is_something_to_say():
    async def run() -> list[dict]:
        sent: list[dict] = []

        async def take(message: dict) -> None:
            sent.append(message)

        events = EventStream(take, ping=5, patience=1)
        await asyncio.sleep(0.02)
        events.close()
        return sent

    assert asyncio.run(run()) == []


def test_a_client_that_does_not_read_is_given_up():
    async def run() -> None:
        async def stuck(message: dict) -> None:
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        events = EventStream(stuck, ping=5, patience=0.05)
        try:
            await events.write(b"data: 1\n\n")
        finally:
            events.close()

    began = time.monotonic()
    with pytest.raises(SlowReaderError):
        asyncio.run(run())
    assert time.monotonic() - began < 2


def test_a_prompt_that_is_being_read_shows_signs_of_life(model):
    watch, registry = Watch(), OneModel(model)
    model.engine.forget()
    with running(registry, [watch], ping_seconds=0.05) as url:
        connection = send(url, LONG, stream=True)
        received = b""
        until(lambda: watch.running)
        while b": still working" not in received:
            received += connection.recv(1 << 12)
        assert received.startswith(b"HTTP/1.1 200") and b"data:" not in received
        connection.close()
        until(lambda: not registry.served.worker.active)


def test_a_client_that_does_not_read_keeps_nobody(model):
    watch, registry = Watch(), OneModel(model)
    with running(registry, [watch], write_seconds=0.5) as url:
        slow = send(url, "Count.", stream=True, max_tokens=8000)
        until(lambda: watch.running)
        other = send(url, "Count as well.", stream=False, max_tokens=20)
        assert other.recv(1 << 16).startswith(b"HTTP/1.1 200")
        other.close()
        slow.close()
        until(lambda: not registry.served.worker.active)
