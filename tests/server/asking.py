"""Calling ASGI applications without a network, and servers on real sockets, in tests."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import uvicorn

from lacewing.server.options import ServerOptions
from lacewing.server.protocol import configure


async def echo(scope, receive, send):
    """Answers with the body; the state that middlewares left is in headers."""
    body, more = b"", True
    while more and scope["method"] == "POST":
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    key = str(scope.get("state", {}).get("key")).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-key", key), (b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def ask(app: Any, method: str = "GET", path: str = "/v1/models", **options: Any) -> httpx.Response:
    """One request to an application."""

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url=options.pop("base_url", "http://localhost:8080")) as client:
            return await client.request(method, path, **options)

    return asyncio.run(run())


@contextlib.contextmanager
def listening(app: Any, options: ServerOptions, make: Callable[..., uvicorn.Server] = uvicorn.Server) -> Iterator[tuple[str, int]]:
    """A server with our protocol in a thread of its own; its address."""
    bound = socket.create_server(("127.0.0.1", 0))
    server = make(configure(app, options))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([bound])))
    thread.start()
    try:
        yield bound.getsockname()
    finally:
        server.should_exit = server.force_exit = True
        thread.join()
        bound.close()


def receive_all(connection: socket.socket, seconds: float = 10.0) -> bytes:
    """Until the other side closes, or nothing comes for so long."""
    connection.settimeout(seconds)
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            found += piece
    return found
