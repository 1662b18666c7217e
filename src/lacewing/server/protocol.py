"""HTTP with limits that uvicorn lacks: connections, header bytes, time to send a request, time to read an answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, ClassVar

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from lacewing.server.options import ServerOptions
from lacewing.server.sse import DIRECT

_KEEP_ALIVE = 30  # seconds that a connection stays open between two requests
_REFUSED = {
    408: (b"Request Timeout", b"the request did not come in time"),
    431: (b"Request Header Fields Too Large", b"the headers are too large"),
    503: (b"Service Unavailable", b"there are too many connections"),
}


class GuardedProtocol(HttpToolsProtocol):
    """One connection.

    A request has to be there as a whole `receive_seconds` after its first byte, and the first one after the connection was made:
    bytes that trickle in buy no time. A client that reads nothing of its answer for `write_seconds` loses the connection.
    """

    options: ClassVar[ServerOptions]

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._refused = False
        self._header_bytes = 0  # of the request whose headers come in now
        self._in_headers = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self.options.connections:
            self.transport = transport
            return self._refuse(503)
        _send_at_once(transport)
        super().connection_made(transport)
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel(self._deadline, self._stalled)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._await_request()
        super().data_received(data)
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > self.options.header_bytes:
                self._refuse(431)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes, self._in_headers = 0, True
        if self._deadline is None:
            self._await_request()

    def on_headers_complete(self) -> None:
        self._in_headers = False
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self.options.header_bytes:
            self._refuse(431)
        if not self._refused:
            cycle = self.cycle
            super().on_headers_complete()
            if self.cycle is not cycle and self.cycle is not None:
                self.scope.setdefault("extensions", {})[DIRECT] = Direct(self.cycle)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._cancel(self._deadline)
        self._deadline = None
        if not self._refused:
            super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self.options.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._cancel(self._stalled)
        super().resume_writing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._abort_later()

    def _abort_later(self) -> None:
        """A connection that closes once its client has read the rest does not wait for ever."""
        if self.transport.is_closing():
            self._cancel(self._stalled)
            self._stalled = self.loop.call_later(self.options.write_seconds, self.transport.abort)

    def _await_request(self) -> None:
        self._deadline = self.loop.call_later(self.options.receive_seconds, self._expire)

    def _expire(self) -> None:
        """An answer that is under way is not cut because the next request lets itself be waited for."""
        cycle = self.cycle
        if self.pipeline or (cycle is not None and not cycle.response_complete and not cycle.more_body):
            return self._await_request()
        if cycle is not None and cycle.response_started and not cycle.response_complete:
            return self.transport.abort()
        self._refuse(408)

    def _refuse(self, status: int) -> None:
        """Answer in the name of no request, and close."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        reason, message = _REFUSED[status]
        lines = b"content-type: text/plain\r\nconnection: close\r\n"
        self.transport.write(b"HTTP/1.1 %d %b\r\n%bcontent-length: %d\r\n\r\n%b" % (status, reason, lines, len(message), message))
        self.transport.close()
        self._abort_later()

    @staticmethod
    def _cancel(*timers: asyncio.TimerHandle | None) -> None:
        for timer in timers:
            if timer is not None:
                timer.cancel()


class Direct:
    """See `sse.Direct`; of one request."""

    def __init__(self, cycle: RequestResponseCycle):
        self._cycle = cycle

    @property
    def flows(self) -> bool:
        cycle = self._cycle
        return bool(cycle.chunked_encoding and not (cycle.flow.write_paused or cycle.disconnected or cycle.response_complete))

    def write(self, data: bytes) -> None:
        self._cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))


def _send_at_once(transport: asyncio.Transport) -> None:
    """Small writes do not wait for the client to acknowledge those before. asyncio sees to it only for sockets made with a protocol
    number, which listening sockets are not."""
    found = transport.get_extra_info("socket")
    if found is not None and found.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):  # the client has gone
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def protocol_for(options: ServerOptions) -> type[GuardedProtocol]:
    """The protocol with these limits."""
    return type("Protocol", (GuardedProtocol,), {"options": options})


def configure(app: ASGIApp, options: ServerOptions) -> uvicorn.Config:
    """For uvicorn: our limits, no log and no headers of its own."""
    return uvicorn.Config(
        app,
        http=protocol_for(options),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=1,
    )
