"""Which web pages may read answers: none, but for the origins that are named, exactly as a browser writes them."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lacewing.server.security.refuse import header

_NAMES = re.compile(rb"[A-Za-z0-9\-_, ]{0,2000}")
_EXPOSED = b"x-request-id, request-id, retry-after"
_SECONDS = b"600"  # that a browser remembers what it may


class Cors:
    """Answers preflights of the origins, and lets their pages read what comes; never with cookies. Others get no such header."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]):
        self._app, self._origins = app, {origin.encode() for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._origins:
            return await self._app(scope, receive, send)
        origin = header(scope, b"origin")
        allowed = [(b"access-control-allow-origin", origin)] if origin in self._origins and origin is not None else []
        headers = [*allowed, (b"vary", b"Origin")]
        if scope["method"] == "OPTIONS" and header(scope, b"access-control-request-method") is not None:
            asked = header(scope, b"access-control-request-headers") or b""
            if allowed and _NAMES.fullmatch(asked):
                headers += [(b"access-control-allow-methods", b"GET, POST, DELETE"), (b"access-control-max-age", _SECONDS)]
                headers += [(b"access-control-allow-headers", asked)] if asked else []
            await send({"type": "http.response.start", "status": 204 if allowed else 403, "headers": headers})
            return await send({"type": "http.response.body", "body": b""})
        exposed = [(b"access-control-expose-headers", _EXPOSED)] if allowed else []

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *headers, *exposed]}
            await send(message)

        await self._app(scope, receive, with_headers)
