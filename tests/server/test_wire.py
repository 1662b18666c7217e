"""Pieces that the driver's thread sends by itself: on the socket in order with all else, and never on another's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace

import httpx
import pytest

from lacewing.server import wire as wires
from lacewing.server.wire import Direct, Wire
from tests.server.serving import OneModel, running

MESSAGES = [{"role": "user", "content": "Count."}]
MANY = 1 << 21  # bytes, more than a system keeps


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.Transport, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    try:
        yield transport, theirs
    finally:
        theirs.close()
        transport.close()


def read(theirs: socket.socket, found: list[bytes]) -> None:
    while part := theirs.recv(1 << 16):
        found.append(part)


def test_what_the_system_does_not_take_goes_out_first():
    async def run() -> bytes:
        async with connected() as (transport, theirs):
            wire, found = Wire(transport, asyncio.get_running_loop()), list[bytes]()
            with wire.lock:
                assert wire.idle
            writer = threading.Thread(target=lambda: wire.put(b"a" * MANY))
            writer.start()
            writer.join()
            assert not wire.idle  # the rest waits, for the loop or within it
            cycle = SimpleNamespace(
                chunked_encoding=True, flow=SimpleNamespace(write_paused=False), disconnected=False, response_complete=False,
                transport=transport,
            )  # fmt: skip
            direct = Direct(cycle, wire)
            assert direct.flows and not direct.idle
            direct.write(b"b")  # by the loop, before it has come to the rest
            reader = threading.Thread(target=read, args=(theirs, found))
            reader.start()
            async with asyncio.timeout(30):
                while not wire.idle:
                    await asyncio.sleep(0.01)
            with wire.lock:
                direct.put(b"c")
            transport.close()
            await asyncio.to_thread(reader.join)
            return b"".join(found)

    assert asyncio.run(run()) == b"a" * MANY + b"1\r\nb\r\n" + b"1\r\nc\r\n"


def test_errors_are_the_loops():
    async def run() -> None:
        async with connected() as (transport, theirs):
            wire = Wire(transport, asyncio.get_running_loop())
            theirs.close()
            with wire.lock:
                wire.put(b"nobody reads it")
            async with asyncio.timeout(10):
                while not transport.is_closing():
                    await asyncio.sleep(0.01)

    asyncio.run(run())


def test_a_socket_is_not_closed_while_somebody_writes():
    async def run() -> None:
        async with connected() as (transport, _theirs):
            wire = Wire(transport, asyncio.get_running_loop())
            closer = threading.Thread(target=wire.close)
            with wire.lock:
                closer.start()
                closer.join(0.05)
                assert closer.is_alive() and wire.idle
            closer.join()
            assert not wire.idle

    asyncio.run(run())


def test_other_kinds_of_transports_are_left_to_the_loop(monkeypatch):
    async def run() -> None:
        async with connected() as (transport, _theirs):
            assert Wire(transport, asyncio.get_running_loop()).idle
            monkeypatch.setattr(os, "name", "nt")
            assert not Wire(transport, asyncio.get_running_loop()).idle

    asyncio.run(run())


def said(url: str, body: dict) -> str:
    """The text of an answer, whatever its pieces."""
    answer = httpx.post(url, json=body, timeout=60).raise_for_status().text
    return "".join(re.findall(r'"(?:content|text)":"((?:[^"\\]|\\.)*)"', answer))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/api/chat", "/completion"])
def test_the_driver_writes_nearly_all_of_an_answer(model, monkeypatch, path):
    """And says the same as the loop alone."""
    put, threads = wires.Wire.put, list[str]()

    def noted(self, data):
        threads.append(threading.current_thread().name)
        put(self, data)

    monkeypatch.setattr(wires.Wire, "put", noted)
    options = {"num_predict": 60, "temperature": 0, "ignore_eos": True}
    body = {"model": "tiny", "stream": True, "max_tokens": 60, "n_predict": 60, "temperature": 0, "ignore_eos": True}
    body |= {"options": options} if path.startswith("/api") else {}
    body |= {"prompt": "Count."} if path.endswith("completion") or path == "/v1/completions" else {"messages": MESSAGES}
    with running(OneModel(model)) as url:
        straight = said(url + path, body)
        assert len(threads) > 30 and set(threads) == {"lacewing-driver"}
        monkeypatch.setattr(wires.Wire, "idle", False)
        threads.clear()
        assert said(url + path, body) == straight and len(straight) > 60 and not threads
