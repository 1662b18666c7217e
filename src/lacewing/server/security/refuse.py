"""An answer that refuses a request before any of the application is asked, in the form of the API that it was for."""

from __future__ import annotations

import json
from collections.abc import Iterable

from starlette.types import Scope, Send

from lacewing.server.dialects import dialect_of
from lacewing.server.openai.errors import RequestError

Headers = Iterable[tuple[bytes, bytes]]


async def refuse(
    scope: Scope, send: Send, status: int, message: str, code: str, *, kind: str = "invalid_request_error", headers: Headers = ()
) -> None:
    """Send `status` with an error object; the connection closes if the body was not read (413, 408)."""
    body = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()
    dialect = dialect_of(scope["path"])
    if dialect is not None:
        told = dialect.response(RequestError(message, status=status, code=code))
        status, body = told.status_code, bytes(told.body)
    fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first of that name (in lower case), or None."""
    return next((value for found, value in scope["headers"] if found == name), None)


def count_of(scope: Scope, name: bytes) -> int:
    """How many headers of that name there are."""
    return sum(found == name for found, _ in scope["headers"])
