"""The body of a request before anything parses it: its size, its kind, and how deep and how many its values are."""

from __future__ import annotations

import asyncio
import logging
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lacewing.server.security.refuse import header, refuse

DEPTH = 100  # of arrays and objects in each other
VALUES = 1 << 19  # commas: a prompt may be a list of token ids
_LARGE = 64 << 10  # bytes; more are checked in a thread
# Possessive, and a string without an end reaches the end: linear in the body, whatever it is.
_PIECES = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{]|[\]}]|,', re.DOTALL)
_WITHOUT = re.compile(r"/v1/responses/[^/]+/cancel")  # clients post it without a body; a foreign page knows no id
_OPENING, _CLOSING = (b"[", b"{"), (b"]", b"}")
_log = logging.getLogger("lacewing.server")
_CLOSE = ((b"connection", b"close"),)  # the rest of the body is not read


class _TooLarge(Exception):
    """More bytes than are allowed."""


class _Gone(Exception):
    """The client went away before its request was whole."""


class Bodies:
    """The body of a request: refused if too large (413), no JSON (415), too deep or of too many values (400), else passed on whole.

    JSON alone, since a browser sends it to foreign servers only after asking (a preflight), which is not answered. `log`: the body
    is written into the log.
    """

    def __init__(self, app: ASGIApp, most: int, log: bool = False):
        self._app, self._most, self._log = app, most, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not (_has_body(scope) or _needs_body(scope)):
            return await self._app(scope, receive, send)
        kind = (header(scope, b"content-type") or b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            message = "the body must be JSON: send it with Content-Type: application/json"
            return await refuse(scope, send, 415, message, "unsupported_media_type", headers=_CLOSE)
        if (header(scope, b"content-encoding") or b"identity").lower() != b"identity":
            return await refuse(scope, send, 415, "the body must not be compressed", "unsupported_media_type", headers=_CLOSE)
        try:
            body = await self._read(scope, receive)
        except _TooLarge:
            message = f"the body has more than {self._most} bytes, which is the limit of this server (--body-bytes)"
            return await refuse(scope, send, 413, message, "request_too_large", headers=_CLOSE)
        except _Gone:
            return
        problem = await _check(body)
        if problem:
            return await refuse(scope, send, 400, problem, "invalid_json")
        if self._log:
            name = scope.get("state", {}).get("request_id")
            _log.info("body", extra={"request": name, "body": body.decode(errors="replace")})
        await self._app(scope, _again(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        length = header(scope, b"content-length")
        if length is not None and (len(length) > 20 or not length.isdigit() or int(length) > self._most):
            raise _TooLarge
        pieces, size = [], 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _Gone
            piece = message.get("body", b"")
            size += len(piece)
            if size > self._most:
                raise _TooLarge
            pieces.append(piece)
            if not message.get("more_body", False):
                return b"".join(pieces)


def _has_body(scope: Scope) -> bool:
    return header(scope, b"transfer-encoding") is not None or (header(scope, b"content-length") or b"0") != b"0"


def _needs_body(scope: Scope) -> bool:
    return bool(scope["method"] == "POST" and not _WITHOUT.fullmatch(scope["path"]))


def _again(body: bytes, receive: Receive) -> Receive:
    """The body in one piece, then whatever comes, which is that the client goes away."""
    given = False

    async def next_message() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message


async def _check(body: bytes) -> str:
    if body.count(b"[") + body.count(b"{") <= DEPTH and body.count(b",") <= VALUES:
        return ""  # nearly all of them
    if len(body) <= _LARGE:
        return json_problem(body)
    return await asyncio.get_running_loop().run_in_executor(None, json_problem, body)


def json_problem(body: bytes) -> str:
    """Why it is too deep or has too many values; nothing if it is neither. What is no JSON is left to whoever parses it."""
    depth = values = 0
    for count, match in enumerate(_PIECES.finditer(body)):
        piece = match[0]
        if count > 4 * VALUES:
            return f"the JSON has more than {4 * VALUES} brackets, commas and strings"
        if piece in _OPENING:
            depth += 1
            if depth > DEPTH:
                return f"the JSON is nested more than {DEPTH} deep"
        elif piece in _CLOSING:
            depth -= 1
        elif piece == b",":
            values += 1
            if values > VALUES:
                return f"the JSON has more than {VALUES} values"
    return ""
