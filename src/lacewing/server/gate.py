"""Which requests are under way, and none any more once the server is to end."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from lacewing.server.security.keys import OPEN
from lacewing.server.security.refuse import refuse

_RETRY = ((b"retry-after", b"5"), (b"connection", b"close"))


class Gate:
    """Counts the requests that are `active`, those about health aside; while `draining`, new ones are answered with 503."""

    def __init__(self, app: ASGIApp):
        self._app = app
        self.active = 0
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN:
            return await self._app(scope, receive, send)
        if self.draining:
            message = "the server is shutting down; ask another one, or later"
            return await refuse(scope, send, 503, message, "shutting_down", kind="server_error", headers=_RETRY)
        self.active += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.active -= 1
