"""Requests to a server, which a person can cancel while they wait."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from lacewing.errors import Cancelled, ContextOverflowError, LacewingError, OptionError
from lacewing.options import format_bytes

if TYPE_CHECKING:
    import httpx  # at run time only where a server is asked: a chat with a model here need not wait for it

T = TypeVar("T")
POLL = 0.05  # seconds between two questions whether the caller has cancelled
CONNECT_SECONDS = 10  # there is no limit later: a model may be loaded, or a long prompt read, before a server answers
MAX_ERROR_BYTES = 1 << 16
MAX_ANSWER_BYTES = 1 << 28  # of one answer, streamed or not: some 500,000 tokens
MAX_SHOWN = 200  # characters of what a server wrote, in a message
_OVERFLOW = ("context_length_exceeded", "exceed_context_size_error")  # codes of OpenAI and Lacewing; the type of llama-server


class ServerError(LacewingError):
    """What a server answered instead of what was asked for; `status` is HTTP's, 0 within a stream or without an answer."""

    def __init__(self, message: str, status: int = 0):
        super().__init__(message)
        self.status = status


class Connection:
    """One server. `address` is its root; `/v1` at the end of what a person gives is OpenAI's part of it.

    Raises OptionError for what is no address.
    """

    def __init__(self, address: str, key: str | None = None):
        import httpx

        self.address = _root(address)
        headers = {"Accept-Encoding": "identity"}  # so that the bytes that come are all that there are
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        try:
            self._client = httpx.AsyncClient(
                timeout=httpx.Timeout(CONNECT_SECONDS, read=None), headers=headers, follow_redirects=False,
                event_hooks={"response": [self._limit]},
            )  # fmt: skip
        except (UnicodeError, ValueError):
            raise OptionError("the API key has characters that HTTP cannot send") from None
        self._loop = asyncio.new_event_loop()
        self._heard = False  # HTTP has come from there

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        cancelled: Callable[[], bool] = bool,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The JSON of an answer. Raises ServerError, ContextOverflowError, Cancelled."""
        return self.wait(self._ask(method, path, body, headers), cancelled)

    async def _ask(self, method: str, path: str, body: Any, headers: Mapping[str, str] | None) -> Any:
        import httpx

        try:
            response = await self._client.request(method, self.address + path, json=body, headers=headers)
        except httpx.HTTPError as error:
            raise self.unreachable(error) from None
        self.check(response, response.content)
        try:
            return response.json()
        except ValueError:
            raise ServerError(f"{self.address}{path} answered with something that is not JSON: is it a model server?") from None

    async def _limit(self, response: httpx.Response) -> None:
        """Have it raise ServerError if more comes than any answer has."""
        import httpx

        address = self.address

        class Limited(httpx.AsyncByteStream):
            def __init__(self, stream: httpx.AsyncByteStream):
                self._stream = stream

            async def __aiter__(self) -> AsyncIterator[bytes]:
                left = MAX_ANSWER_BYTES
                async for piece in self._stream:
                    left -= len(piece)
                    if left < 0:
                        raise ServerError(
                            f"{address} answered with more than {format_bytes(MAX_ANSWER_BYTES)}; the rest was not read"
                        )
                    yield piece

            async def aclose(self) -> None:
                await self._stream.aclose()

        if isinstance(response.stream, httpx.AsyncByteStream):
            response.stream = Limited(response.stream)

    def stream(self, path: str, body: Any) -> Any:
        """A context manager of a response whose lines come one by one."""
        return self._client.stream("POST", self.address + path, json=body)

    def wait(self, work: Coroutine[Any, Any, T], cancelled: Callable[[], bool] = bool) -> T:
        """Its result. Raises Cancelled, once it has been told to end and has ended."""
        task = self._loop.create_task(work)
        try:
            while not self._loop.run_until_complete(asyncio.wait({task}, timeout=POLL))[0]:
                if cancelled():
                    raise Cancelled("cancelled; nothing was changed")
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                self._loop.run_until_complete(asyncio.wait({task}))

    def check(self, response: httpx.Response, content: bytes) -> None:
        """Raises ServerError, ContextOverflowError for an answer that is an error or a redirection."""
        self._heard = True
        if response.has_redirect_location:  # is not followed: the API key is for the address that a person gave
            to = response.headers["location"][:MAX_SHOWN]
            raise ServerError(
                f"{self.address} redirects to {to}, which is not followed; give --server the address itself", response.status_code
            )
        if response.is_error:
            raise self.refused(response.status_code, content)

    def refused(self, status: int, content: bytes) -> LacewingError:
        """The error that a body tells, in any of the usual forms."""
        error, code, kind = _told(content[:MAX_ERROR_BYTES])
        if code in _OVERFLOW or kind in _OVERFLOW:
            return ContextOverflowError(f"{self.address}: {error}")
        if status in (401, 403) and not error:
            error = "the server wants an API key, or another one"
        if status in (401, 403):
            error += "; --server-key or LACEWING_SERVER_KEY gives it"
        return ServerError(f"{self.address}: {error or f'the request was answered with status {status}'}", status)

    def unreachable(self, error: httpx.HTTPError) -> ServerError:
        """No answer, or an answer that broke off."""
        import httpx

        reason = str(error) or type(error).__name__
        if "WRONG_VERSION_NUMBER" in reason:  # OpenSSL's name for what is not TLS
            there = self.address.removeprefix("https://")
            return ServerError(f"{self.address} speaks no TLS ({reason}); if it is a server without it, write http://{there}")
        if isinstance(error, httpx.RemoteProtocolError) and not self._heard:
            there = self.address.removeprefix("http://")
            return ServerError(
                f"no HTTP comes from {self.address} ({reason}): is it the address of a model server? "
                f"if it is one of https, write https://{there}"
            )
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return ServerError(f"no server answers at {self.address} ({reason}); `lacewing serve MODEL` starts one")
        return ServerError(f"the connection to {self.address} broke ({reason})")

    def close(self) -> None:
        if not self._loop.is_closed():
            self._loop.run_until_complete(self._client.aclose())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


def _root(address: str) -> str:
    text = address.strip()
    text = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(text)
        well = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        well = False
    if well and (parts.username is not None or parts.password is not None):
        raise OptionError(
            "the address of a server cannot have a user or a password in it, which would be shown and saved; use --server-key"
        )
    if not well or parts.query or parts.fragment or any(map(str.isspace, text)):
        raise OptionError(f"{address!r} is not the address of a server; write one such as http://127.0.0.1:8080")
    return text.rstrip("/").removesuffix("/v1")


def _told(content: bytes) -> tuple[str, str, str]:
    """Message, code and type; each "" if it is not told."""
    try:
        found = json.loads(content)
    except ValueError:
        return "", "", ""
    error = found.get("error", found.get("detail", found)) if isinstance(found, dict) else found
    if isinstance(error, dict):
        parts = (error.get("message"), error.get("code"), error.get("type"))
        return tuple("" if part is None else str(part) for part in parts)  # type: ignore[return-value]
    return (error if isinstance(error, str) else ""), "", ""
