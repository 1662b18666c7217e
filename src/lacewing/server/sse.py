"""Server-sent events: what is written while an answer comes, and comments while nothing does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, Protocol

from lacewing.errors import LacewingError
from lacewing.server.dialect import EVENTS

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

DIRECT = "lacewing.direct"  # an extension of ASGI: a `Direct`
_HEADERS = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


class SlowReaderError(LacewingError):
    """A client does not read what it asked for. It is not told, since it would not read that either: its connection is closed."""

    status, code = 408, "slow_reader"


class Direct(Protocol):
    """Writes pieces of a body past ASGI, whose coroutines cost more than the write. `flows`: it need not be waited for, as the
    client reads what it gets."""

    @property
    def flows(self) -> bool: ...

    def write(self, data: bytes) -> None: ...


class EventStream:
    """The body of a response. It starts with the first event, or with a comment once nothing came for `ping` seconds (None: never).

    `sign`: an event behind each comment, for clients that do not count comments as a sign of life.

    So errors before that have a status of their own; and a comment shows a connection that is half closed.
    What a client does not read piles up in the transport to its limit; then writing waits, `patience` seconds at most. What comes
    meanwhile becomes one piece (`feed.Choice`), so that a client that reads late misses nothing, and others never wait for it.
    `direct`: None where the server has no such thing, before the stream has started, and while a write is waited for. Who writes
    past `write` says in `written` when, as `time.monotonic` does.
    """

    def __init__(
        self, send: Send, ping: float | None, patience: float, content_type: bytes = EVENTS, sign: bytes = b"",
        direct: Direct | None = None,
    ):  # fmt: skip
        self.started = False
        self.direct: Direct | None = None
        self.written = time.monotonic()
        self._direct = direct
        self._note = "still working"
        self._send, self._patience, self._sign = send, patience, sign
        self._headers = [(b"content-type", content_type), *_HEADERS]
        self._loop = asyncio.get_running_loop()
        self._writing = False
        self._task: asyncio.Task[None] | None = None
        self._timer = None if ping is None else self._loop.call_later(ping, self._tick, ping)

    async def write(self, data: bytes) -> None:
        """Raises SlowReaderError."""
        self._writing, self.direct = True, None
        try:
            if not self.started:
                self.started = True
                await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})
            await _within(self._patience, self._send({"type": "http.response.body", "body": data, "more_body": True}))
        finally:
            self._writing, self.direct = False, self._direct
        self.written = time.monotonic()

    def note(self, what: str, done: int, total: int) -> None:
        """What the next comment says: a `Progress`."""
        self._note = " ".join(f"{what} {done} of {total}".split())

    async def end(self, data: bytes = b"") -> None:
        """The last of it."""
        self.close()
        if not self.started:
            await self.write(data)
            data = b""
        await _within(self._patience, self._send({"type": "http.response.body", "body": data, "more_body": False}))

    def close(self) -> None:
        """No more comments."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _tick(self, ping: float) -> None:
        rest = self.written + ping - time.monotonic()
        if rest <= 0.001 and not self._writing:
            self._task = self._loop.create_task(self._comment())
            rest = ping
        self._timer = self._loop.call_later(max(rest, 0.001), self._tick, ping)

    async def _comment(self) -> None:
        with contextlib.suppress(SlowReaderError):
            await self.write(f": {self._note}\n\n".encode() + self._sign)


async def _within(seconds: float, sending: Awaitable[None]) -> None:
    """Without a timer where it is done at once, as nearly always."""
    iterator = sending.__await__()
    try:
        waited = next(iterator)
    except StopIteration:
        return
    try:
        async with asyncio.timeout(seconds):
            await _Rest(iterator, waited)
    except TimeoutError:
        raise SlowReaderError(f"the client read nothing for {seconds:g} s") from None


class _Rest:
    """The rest of an awaitable that has been started."""

    def __init__(self, iterator: Any, waited: Any):
        self._iterator, self._waited = iterator, waited

    def __await__(self) -> Any:
        yield self._waited
        return (yield from self._iterator)


async def disconnected(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(coroutine: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Runs it, unless the client leaves before it is done."""
    work = asyncio.ensure_future(coroutine)
    gone = asyncio.ensure_future(disconnected(receive))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not work.done():
            work.cancel()
        await asyncio.wait((work,))
    if not work.cancelled():
        work.result()
