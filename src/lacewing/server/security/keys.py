"""API keys: compared in constant time, all of them each time, so that how long a refusal takes tells nothing about them."""

from __future__ import annotations

import hashlib
import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from lacewing.server.security.refuse import header, refuse

OPEN = frozenset(("/health", "/v1/health"))  # say nothing about models or people
PAGE = ("/", "/page/")  # a browser cannot send a key with the address that it opens; the page asks for the key then


class Keys:
    """Answers 401 without one of the keys, in `Authorization: Bearer` or `x-api-key`; without keys all may ask.

    `scope["state"]["key"]` becomes the number of the key, for a fair order between those who ask.
    """

    def __init__(self, app: ASGIApp, keys: tuple[str, ...]):
        self._app, self._digests = app, [_digest(key.encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._digests and not is_open(scope):
            given = _given(scope)
            found = None if given is None else self._find(given)
            if found is None:
                what = "an API key is needed" if given is None else "the API key is not valid"
                message = f"{what}; send it as Authorization: Bearer KEY"
                return await refuse(scope, send, 401, message, "invalid_api_key", headers=((b"www-authenticate", b"Bearer"),))
            scope.setdefault("state", {})["key"] = found
        await self._app(scope, receive, send)

    def _find(self, given: bytes) -> int | None:
        digest, found = _digest(given), None
        for index, each in enumerate(self._digests):
            if hmac.compare_digest(digest, each):
                found = index
        return found


def is_open(scope: Scope) -> bool:
    """Whether anybody may ask for it: health, and the files of the web page."""
    path = scope["path"]
    return path in OPEN or (scope["method"] in ("GET", "HEAD") and (path == PAGE[0] or path.startswith(PAGE[1])))


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _given(scope: Scope) -> bytes | None:
    bearer = header(scope, b"authorization")
    if bearer is not None:
        scheme, _, key = bearer.partition(b" ")
        return key.strip() if scheme.lower() == b"bearer" else b""
    return header(scope, b"x-api-key")
