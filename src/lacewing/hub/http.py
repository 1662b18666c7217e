"""A resumable download over HTTP(S) with nothing but the standard library, and SHA-256 of files."""

from __future__ import annotations

import hashlib
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO

from lacewing.errors import DownloadError
from lacewing.options import Progress

_BLOCK = 1 << 18
_TRIES = 5


def is_url(text: str) -> bool:
    return text.startswith(("https://", "http://"))


def count_of(text: str | None) -> int | None:
    """The number of bytes that a header tells; None where it is missing or none."""
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,18}", text) else None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Goes where a server sends us, but by HTTP(S) only."""

    def redirect_request(
        self, request: urllib.request.Request, response: IO[bytes], code: int, message: str, headers: HTTPMessage, url: str
    ) -> urllib.request.Request | None:
        if not is_url(url):
            raise urllib.error.HTTPError(url, code, f"redirected to {url!r}, which is not http or https", headers, response)
        return super().redirect_request(request, response, code, message, headers, url)


def open_url(url: str, headers: dict[str, str] | None = None, timeout: float = 15, token: str | None = None) -> HTTPResponse:
    """A GET; raises DownloadError. `token` is shown to this server alone, not where it sends us on.

    The certificates of PIP_CERT, SSL_CERT_FILE or the system are trusted.
    """
    if not is_url(url):
        raise DownloadError(f"cannot fetch {url}: only http and https are supported")
    cafile = os.environ.get("PIP_CERT") or os.environ.get("REQUESTS_CA_BUNDLE")
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "lacewing", **(headers or {})})
        if token:
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        context = ssl.create_default_context(cafile=cafile if cafile and os.path.isfile(cafile) else None)
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _Redirects)
        response: HTTPResponse = opener.open(request, timeout=timeout)
        return response
    except (OSError, HTTPException, ValueError) as error:  # ValueError: of addresses that are none, also ones that we are sent to
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        raise DownloadError(f"cannot fetch {url}: {error}") from error


def download(url: str, target: Path, *, size: int | None, sha256: str | None, label: str, progress: Progress | None) -> None:
    """Fetch into `target`, going on from `target`.part where the server allows; checked before it gets its name.

    Raises DownloadError after several tries that bring nothing new, or when size or SHA-256 differ.
    """
    part = target.with_name(target.name + ".part")
    failures = 0
    while size is None or _size(part) != size:
        before = _size(part)
        try:
            if _append(url, part, size, label, progress):
                break
        except DownloadError as error:
            if isinstance(error.__cause__, urllib.error.HTTPError) and error.__cause__.code == 416:
                part.unlink(missing_ok=True)  # what is here goes beyond the file: begin again
            failures = 0 if _size(part) > before else failures + 1
            if failures >= _TRIES - 1 or (before == 0 and _size(part) == 0):
                raise
            time.sleep(0.5 * 2**failures)
    check(part, size, sha256)
    os.replace(part, target)


def check(path: Path, size: int | None, sha256: str | None) -> str:
    """The file's SHA-256; deletes it and raises DownloadError when size or SHA-256 are not the expected ones."""
    found = digest(path)
    if (size is not None and _size(path) != size) or (sha256 is not None and found != sha256):
        actual = _size(path)
        path.unlink()
        raise DownloadError(
            f"{path.name} was damaged in transfer: {actual} bytes, SHA-256 {found}, not {size or 'any'} bytes, {sha256 or 'any'}; "
            "it was deleted, fetch it again"
        )
    return found


def digest(path: Path) -> str:
    """SHA-256 as hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _append(url: str, part: Path, size: int | None, label: str, progress: Progress | None) -> bool:
    """One try; True when the body ended as announced."""
    have = _size(part)
    if size is not None and have > size:
        part.unlink()
        have = 0
    with open_url(url, {"Range": f"bytes={have}-"} if have else {}) as response:
        resumed = response.status == 206 and str(response.headers.get("Content-Range", "")).startswith(f"bytes {have}-")
        done = have if resumed else 0
        length = count_of(response.headers.get("Content-Length"))
        total = size or (done + length if length is not None else 0)
        try:
            with open(part, "ab" if resumed else "wb") as file:
                while block := response.read(_BLOCK):
                    file.write(block)
                    done += len(block)
                    if progress is not None:
                        progress(label, done, max(total, done))
        except (OSError, HTTPException) as error:
            raise DownloadError(
                f"the transfer of {url} was interrupted after {done} bytes: {error}; run the same command to continue"
            ) from error
    if total and done < total:
        raise DownloadError(f"the transfer of {url} ended after {done} of {total} bytes; run the same command to continue")
    return True
