"""Answers over HTTP(S) with the standard library: bounded in bytes and in time."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any
from urllib.parse import urlsplit

from lacewing.errors import DownloadError, ModelFormatError
from lacewing.formats.json_files import parse
from lacewing.hub.names import is_url
from lacewing.options import format_bytes

_BLOCK = 1 << 18
_SILENCE = 15.0  # seconds without a byte, then a connection is given up
PATIENCE = 60.0  # seconds for an answer to begin, and for a small one to be here
_SLOWEST = 64  # bytes a second, measured over PATIENCE


class Unreachable(DownloadError):
    """No server answered: the network, the name or the server is down."""


def count_of(text: str | None) -> int | None:
    """The number of bytes that a header tells; None where it is missing or none."""
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,18}", text) else None


def version_of(response: HTTPResponse) -> str:
    """What tells a file of a server from a later one: ETag or date; empty if it says nothing."""
    return str(response.headers.get("ETag") or response.headers.get("Last-Modified") or "")[:1000]


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind a DownloadError, if a server answered with one."""
    return error.__cause__.code if isinstance(error.__cause__, urllib.error.HTTPError) else None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Goes where a server sends us, but by HTTP(S) only; a token stays with the server that it is for."""

    def redirect_request(
        self, request: urllib.request.Request, response: IO[bytes], code: int, message: str, headers: HTTPMessage, url: str
    ) -> urllib.request.Request | None:
        if not is_url(url):
            raise urllib.error.HTTPError(url, code, f"redirected to {url!r}, which is not http or https", headers, response)
        found = super().redirect_request(request, response, code, message, headers, url)
        token = request.unredirected_hdrs.get("Authorization")
        if found and token and urlsplit(url)[:2] == urlsplit(request.full_url)[:2]:
            found.add_unredirected_header("Authorization", token)
        return found


def open_url(
    url: str, headers: dict[str, str] | None = None, token: str | None = None, seconds: float | None = None
) -> HTTPResponse:
    """A GET; raises DownloadError, as Unreachable if nobody answers. `token` is shown to this server alone. `seconds`: for the
    answer to begin, PATIENCE by default.

    The certificates of PIP_CERT, SSL_CERT_FILE or the system are trusted.
    """
    if not is_url(url):
        raise DownloadError(f"cannot fetch {url}: only http and https are supported")
    try:
        return _within(seconds or PATIENCE, lambda: _open(url, headers or {}, token))
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        raise DownloadError(f"cannot fetch {url}: {error}") from error
    except (HTTPException, ValueError) as error:  # ValueError: of addresses that are none, also ones that we are sent to
        raise DownloadError(f"cannot fetch {url}: {error}") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise Unreachable(f"cannot reach {urlsplit(url).netloc}; check your connection ({reason})") from error


def _open(url: str, headers: dict[str, str], token: str | None) -> HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "lacewing", **headers})
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    cafile = os.environ.get("PIP_CERT") or os.environ.get("REQUESTS_CA_BUNDLE")
    context = _trust(cafile if cafile and os.path.isfile(cafile) else None)
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _Redirects)
    response: HTTPResponse = opener.open(request, timeout=_SILENCE)
    return response


@functools.cache
def _trust(cafile: str | None) -> ssl.SSLContext:
    """The certificates, which take a while to read."""
    return ssl.create_default_context(cafile=cafile)


def _within(seconds: float, call: Callable[[], HTTPResponse]) -> HTTPResponse:
    """What `call` gives. Raises TimeoutError if it takes longer: a server may send a byte now and then without end."""
    done: SimpleQueue[HTTPResponse | BaseException] = SimpleQueue()
    late = threading.Event()

    def work() -> None:
        try:
            found = call()
            if late.is_set():
                found.close()
            done.put(found)
        except BaseException as error:
            done.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        found = done.get(timeout=seconds)
    except Empty:
        late.set()
        raise TimeoutError(f"no answer within {seconds:.0f} s") from None
    if isinstance(found, BaseException):
        try:
            raise found
        finally:
            del found  # its traceback leads here: a circle that would keep the connection
    return found


def blocks(response: HTTPResponse, url: str) -> Iterator[bytes]:
    """The body as it comes. Raises DownloadError if the connection breaks, or brings next to nothing for a minute."""
    came, slow, over = [0], threading.Event(), threading.Event()

    def watch() -> None:
        before = 0
        while not over.wait(PATIENCE):
            if came[0] - before < _SLOWEST * PATIENCE:
                slow.set()
                with contextlib.suppress(OSError, ValueError), socket.socket(fileno=socket.dup(response.fileno())) as line:
                    line.shutdown(socket.SHUT_RDWR)  # ends the read that waits
                return
            before = came[0]

    threading.Thread(target=watch, daemon=True).start()
    try:
        while block := response.read1(_BLOCK):
            came[0] += len(block)
            yield block
    except (OSError, HTTPException, ValueError) as error:
        what = "is too slow" if slow.is_set() else f"was interrupted: {error}"
        raise DownloadError(f"the transfer of {url} {what}; run the same command to continue") from error
    finally:
        over.set()
    if slow.is_set():
        raise DownloadError(f"the transfer of {url} is too slow; run the same command to continue")


@dataclass(frozen=True)
class Answer:
    """A small document: where it came from in the end, its type, its bytes."""

    url: str
    kind: str
    body: bytes

    def json(self) -> Any:
        """Raises DownloadError for what strict JSON does not allow, or is nested too deeply."""
        try:
            return parse(Path("answer"), self.body)
        except ModelFormatError as error:
            raise DownloadError(f"{self.url} answered in an unknown form: it {error.problem}") from error


def fetch_small(url: str, limit: int, headers: dict[str, str] | None = None, token: str | None = None) -> Answer:
    """A document of at most `limit` bytes. Raises DownloadError, also if it is not here after PATIENCE seconds."""
    end = time.monotonic() + PATIENCE
    body = bytearray()
    with open_url(url, headers, token) as response:
        for block in blocks(response, url):
            body += block
            if len(body) > limit:
                raise DownloadError(f"{url} answered with more than {format_bytes(limit)}, which such an answer does not need")
            if time.monotonic() > end:
                raise DownloadError(f"{url} takes longer than {PATIENCE:.0f} s to answer")
        return Answer(response.url, str(response.headers.get("Content-Type", "")), bytes(body))
