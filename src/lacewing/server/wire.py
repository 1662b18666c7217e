"""Pieces of a response that go to the socket past ASGI: from the event loop's thread, or from the thread that has made them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class Wire:
    """The socket of one connection, for threads other than the event loop's.

    `lock`: whoever has it may write, and knows that the socket is not closed meanwhile, after which its number may be another's.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop):
        self.lock = threading.Lock()
        self._transport, self._loop = transport, loop
        self._file = _file_of(transport, loop)
        self._waiting = transport.get_write_buffer_size
        self._left = b""  # what the system did not take; it goes out before everything else

    @property
    def idle(self) -> bool:
        """Whether `put` may be called by who has the lock: nothing waits to be sent."""
        return self._file >= 0 and not (self._left or self._waiting())

    def put(self, data: bytes) -> None:
        """By any thread, with the lock. What the system does not take now is left to the event loop, errors as well."""
        try:
            sent = os.write(self._file, data)
        except OSError:
            sent = 0
        if sent < len(data):
            self._left = data[sent:]
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.settle)

    def settle(self) -> None:
        """In the event loop's thread, before it writes itself: hand the transport what is left."""
        with self.lock:
            left, self._left = self._left, b""
        if left:
            self._transport.write(left)

    def close(self) -> None:
        """In the event loop's thread, before the socket is closed; waits for who writes."""
        with self.lock:
            self._file, self._left = -1, b""


def _file_of(transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> int:
    """Its number; -1 where others may not write to it."""
    found = transport.get_extra_info("socket")
    if os.name != "posix" or not isinstance(loop, asyncio.SelectorEventLoop) or transport.get_extra_info("sslcontext") or not found:
        return -1
    number: int = found.fileno()
    return number


class Direct:
    """See `sse.Direct`; of one request."""

    def __init__(self, cycle: RequestResponseCycle, wire: Wire):
        self._cycle, self._wire = cycle, wire
        self.lock, self.settle = wire.lock, wire.settle

    @property
    def flows(self) -> bool:
        cycle = self._cycle
        return bool(cycle.chunked_encoding and not (cycle.flow.write_paused or cycle.disconnected or cycle.response_complete))

    @property
    def idle(self) -> bool:
        cycle = self._cycle
        if not cycle.chunked_encoding or cycle.disconnected or cycle.response_complete:
            return False
        return self._wire.idle  # writing is paused for what waits to be sent

    def write(self, data: bytes) -> None:
        self._wire.settle()
        self._cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def put(self, data: bytes) -> None:
        self._wire.put(b"%x\r\n%b\r\n" % (len(data), data))
