"""Which names a server may be called by. A web page whose own name was made to lead to this machine (DNS rebinding) has another."""

from __future__ import annotations

import ipaddress
import re
import socket

from starlette.types import ASGIApp, Receive, Scope, Send

from lacewing.server.options import ServerOptions
from lacewing.server.security.binding import Binding, is_loopback
from lacewing.server.security.refuse import count_of, header, refuse

_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::\d{1,5})?")
ANY = "*"


class Hosts:
    """Answers 421 to a Host that is none of this server's, 400 to one that is malformed or missing.

    On this machine alone: localhost, its addresses, the name that was bound, and `allowed_hosts`. With a public address: other
    addresses too, since rebinding needs a name; and with API keys, which a foreign page does not have, every name.
    """

    def __init__(self, app: ASGIApp, options: ServerOptions, binding: Binding):
        self._app, self._public = app, binding.public
        names = {"localhost", options.host, *options.allowed_hosts, *([socket.gethostname()] if binding.public else [])}
        self._names = {name.lower().rstrip(".") for name in names if name}
        self._any = ANY in options.allowed_hosts or (binding.public and bool(options.api_keys))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        host = header(scope, b"host")
        if host is None and scope["http_version"] == "1.0":  # no browser asks so
            return await self._app(scope, receive, send)
        match = _HOST.fullmatch(host or b"")
        if match is None or count_of(scope, b"host") != 1:
            return await refuse(scope, send, 400, "the request needs one valid Host header", "bad_host")
        name = (match[1] or match[2]).decode().lower().rstrip(".")
        if not self._allows(name):
            message = f"this server is not called {name!r}; start it with --allowed-host {name} if it is"
            return await refuse(scope, send, 421, message, "unknown_host")
        await self._app(scope, receive, send)

    def _allows(self, name: str) -> bool:
        if self._any or name in self._names or is_loopback(name):
            return True
        if not self._public:
            return False
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return False
