"""Real sockets: slow and large requests, too many connections, clients that do not read."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import pytest
import uvicorn

from lacewing.server.options import ServerOptions
from tests.server.asking import echo, listening, receive_all
from tests.timing import in_time, timely

QUICK = ServerOptions(receive_seconds=0.6, write_seconds=0.6, header_bytes=4096, connections=8)
GET = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 5\r\n\r\n"


@pytest.fixture(scope="module")
def address():
    with listening(echo, QUICK) as found:
        yield found


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def ask(address, data: bytes = GET) -> int:
    with socket.create_connection(address) as connection:
        connection.sendall(data)
        return status_of(connection.recv(65536))


def trickle(address, data: bytes, every: float = 0.05) -> tuple[int, float]:
    """Byte by byte, until the server closes: the status, and how long that took."""
    began = time.monotonic()
    with socket.create_connection(address) as connection:
        connection.setblocking(False)
        for byte in data:
            with contextlib.suppress(BlockingIOError):
                if (answer := connection.recv(65536)) is not None:
                    return status_of(answer), time.monotonic() - began
            connection.send(bytes([byte]))
            time.sleep(every)
    return 0, time.monotonic() - began


@pytest.mark.parametrize("data", [GET + b"x" * 100, POST + b"x" * 100, b"GET /" + b"a" * 400], ids=["headers", "body", "url"])
def test_bytes_that_trickle_in_buy_no_time(address, data):
    slow = data.replace(b"\r\n\r\n", b"\r\nx-more: " + b"y" * 200 + b"\r\n\r\n", 1) if data.startswith(b"GET /h") else data
    start = slow if b"content-length" not in slow else slow[: slow.index(b"\r\n\r\n") + 4]
    if start is not slow:  # the headers at once, the body slowly
        began = time.monotonic()
        with socket.create_connection(address) as connection:
            connection.sendall(start)
            answer = receive_all(connection)
        status, seconds = status_of(answer), time.monotonic() - began
    else:
        status, seconds = trickle(address, slow)
    assert status == 408 and 0.4 < seconds < 3


def test_a_connection_that_says_nothing_is_closed(address):
    with socket.create_connection(address) as connection:
        began = time.monotonic()
        assert status_of(receive_all(connection)) == 408 and time.monotonic() - began < 3


def test_a_second_request_on_a_connection_has_its_own_time(address):
    with socket.create_connection(address) as connection:
        for _ in range(3):
            connection.sendall(GET)
            assert status_of(connection.recv(65536)) == 200
            time.sleep(0.4)
        connection.sendall(GET[:10])
        assert status_of(receive_all(connection)) == 408


@pytest.mark.parametrize("pieces", [1, 7])
def test_large_headers_are_refused(address, pieces):
    data = b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"".join(b"x-%d: %s\r\n" % (at, b"y" * 500) for at in range(10)) + b"\r\n"
    with socket.create_connection(address) as connection:
        size = -(-len(data) // pieces)
        for at in range(0, len(data), size):
            with contextlib.suppress(OSError):  # it may have answered before the end
                connection.sendall(data[at : at + size])
            time.sleep(0.02)
        assert status_of(receive_all(connection)) == 431
    assert ask(address) == 200


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40,  # TLS
        b"GET http://[ HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n" * 50 + b"nonsense\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(address, data):
    with socket.create_connection(address) as connection:
        connection.sendall(data)
        assert status_of(receive_all(connection)) == 400
    assert ask(address) == 200


def test_more_connections_than_allowed_are_refused(address):
    held = [socket.create_connection(address) for _ in range(QUICK.connections)]
    try:
        time.sleep(0.1)
        with socket.create_connection(address) as connection:
            assert status_of(receive_all(connection)) == 503
    finally:
        for each in held:
            each.close()
    time.sleep(0.1)
    assert ask(address) == 200


@timely
def test_slow_clients_do_not_slow_others(address):
    """Row 14 of the faults, small: trickling connections beside one that asks again and again."""
    held = [socket.create_connection(address) for _ in range(QUICK.connections - 2)]
    seconds = []
    for _ in range(20):
        for each in held:
            with contextlib.suppress(OSError):
                each.send(b"G")
        began = time.monotonic()
        assert ask(address) == 200
        seconds.append(time.monotonic() - began)
    for each in held:
        each.close()
    in_time(sorted(seconds)[18], 0.25)


def test_a_client_that_does_not_read_loses_its_connection():
    gone = []

    async def endless(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                if gone.append(time.monotonic()) or len(gone) > 2000:
                    return
                watch = asyncio.ensure_future(receive())
                done, _ = await asyncio.wait({watch}, timeout=0)
                if done:
                    return
                watch.cancel()

    with listening(endless, QUICK) as address, socket.create_connection(address) as connection:
        connection.sendall(GET)
        began = time.monotonic()
        while time.monotonic() - began < 5:
            count = len(gone)
            time.sleep(1.0)
            if len(gone) == count:
                break
        assert len(gone) < 2000  # the buffers were full, and the rest was not made
        assert len(receive_all(connection)) < 16 << 20  # what the buffers held; then it is closed


def test_an_answer_under_way_is_not_cut_by_the_next_request():
    async def slow(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await asyncio.sleep(1.5)
        await send({"type": "http.response.body", "body": b"b", "more_body": False})

    with listening(slow, QUICK) as address, socket.create_connection(address) as connection:
        connection.sendall(GET + GET[:10])  # and the rest of the second one never comes
        assert receive_all(connection).count(b"\r\n\r\nab") == 1


def test_small_writes_leave_at_once():
    """Else the body after its head, and each token, wait for the client's system to acknowledge what went before (40 ms)."""
    made: list[uvicorn.Server] = []

    def make(config: uvicorn.Config) -> uvicorn.Server:
        made.append(uvicorn.Server(config))
        return made[0]

    with listening(echo, QUICK, make) as address, socket.create_connection(address) as connection:
        connection.sendall(GET)
        assert status_of(connection.recv(65536)) == 200
        (protocol,) = made[0].server_state.connections
        found = protocol.transport.get_extra_info("socket")
        assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
