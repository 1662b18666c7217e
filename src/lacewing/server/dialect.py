"""How an API tells errors, and how its streams are framed: what an exchange needs to know of it besides its answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.responses import Response

EVENTS = b"text/event-stream; charset=utf-8"
LINES = b"application/x-ndjson"


@dataclass(frozen=True)
class Dialect:
    """`response`: the answer to a request that failed before anything was sent; `event`: the same within a stream.

    `end`: what stands behind the last event. `pings`: whether a stream may hold comments that clients skip; `ping`: an event that
    stands behind each of them.
    """

    response: Callable[[BaseException], Response]
    event: Callable[[BaseException], bytes]
    end: bytes = b""
    content_type: bytes = EVENTS
    pings: bool = True
    ping: bytes = b""
