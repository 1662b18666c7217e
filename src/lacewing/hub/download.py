"""A file over HTTP(S): bounded by its announced size and by the disk, continued by later processes; SHA-256 of files."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path

from lacewing.errors import DownloadError
from lacewing.hub.http import blocks, count_of, open_url, status_of, version_of
from lacewing.options import Progress, format_bytes

_TRIES = 5
_MUCH = 64 << 10  # bytes that a try has to bring to count for something: a server may send one and break off, without end
_SHARE = 0.5  # of the free disk, for a body whose size nobody tells


class _Final(DownloadError):
    """What another try does not fix."""


def check_room(folder: Path, needed: int, what: str) -> None:
    """Raise DownloadError if the disk of `folder` does not hold `needed` bytes more."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{what} needs {format_bytes(needed)} on the disk of {folder}, which has {format_bytes(free)} free; "
            "free some space there, or name a folder on another disk in LACEWING_CACHE"
        )


@dataclass(frozen=True)
class Wanted:
    """A file to fetch, with all that is known of it beforehand. `version` tells this file from a later one of its name."""

    url: str
    size: int | None = None
    sha256: str | None = None
    version: str | None = None
    token: str | None = None


def download(wanted: Wanted, target: Path, label: str, progress: Progress | None) -> str:
    """Fetch into `target`, continuing `target`.part where that is of the same file; checked before it gets its name.

    Returns its SHA-256. Raises DownloadError after several tries that bring next to nothing, when size or SHA-256 differ, or when
    the body is longer than announced or than the disk can hold.
    """
    transfer = _Transfer(wanted, target.with_name(target.name + ".part"), label, progress)
    transfer.drop_stale()
    failures = 0
    while wanted.size is None or not transfer.part.exists() or size_of(transfer.part) != wanted.size:
        before = size_of(transfer.part)
        try:
            transfer.attempt()
            break
        except DownloadError as error:
            status, after = status_of(error), size_of(transfer.part)
            if status == 416:
                transfer.drop()  # what is here goes beyond the file: begin again
            failures = 0 if after >= before + _MUCH else failures + 1
            refused = status is not None and 400 <= status < 500 and status not in (408, 416, 429)
            if isinstance(error, _Final) or refused or failures >= _TRIES - 1 or before == after == 0:
                raise
            time.sleep(0.5 * 2**failures)
    transfer.note.unlink(missing_ok=True)
    found = check(transfer.part, wanted.size, wanted.sha256)
    os.replace(transfer.part, target)
    return found


class _Transfer:
    """One file on its way: what is here of it, and a note beside it that tells which version that is of."""

    def __init__(self, wanted: Wanted, part: Path, label: str, progress: Progress | None):
        self.wanted, self.part, self.note = wanted, part, part.with_suffix(".version")
        self.label, self.progress = label, progress
        self.expected = wanted.sha256 or wanted.version  # None: the server's own version counts

    def known(self) -> str:
        return self.note.read_text(encoding="utf-8", errors="replace") if self.note.exists() else ""

    def drop(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def drop_stale(self) -> None:
        """Begin again if what is here is of another version, or nothing would tell."""
        known, too_long = self.known(), self.wanted.size is not None and size_of(self.part) > self.wanted.size
        if too_long or (known != self.expected if self.expected and known else not self.expected and not known):
            self.drop()

    def attempt(self) -> None:
        """One try; returns when the body is here as announced."""
        have = size_of(self.part)
        headers = {"Range": f"bytes={have}-"} if have else {}
        known = self.known()
        if have and known and not self.expected and not known.startswith("W/"):
            headers["If-Range"] = known
        with open_url(self.wanted.url, headers, self.wanted.token) as response:
            version = version_of(response)
            resumed = response.status == 206 and str(response.headers.get("Content-Range", "")).startswith(f"bytes {have}-")
            if resumed and not self.expected and version != known:
                self.drop()
                raise DownloadError(f"{self.wanted.url} was changed meanwhile; run the same command to fetch it from the start")
            start = have if resumed else 0
            length = count_of(response.headers.get("Content-Length"))
            total = self.wanted.size if length is None else start + length
            if self.wanted.size is not None and total != self.wanted.size:
                self.drop()
                raise _Final(f"{self.wanted.url} has {total} bytes, but {self.wanted.size} were announced")
            check_room(self.part.parent, (total or 0) - start, self.label)
            if note := self.expected or version:
                self.note.write_text(note, encoding="utf-8")
            done = self.write(response, start, total)
        if total is not None and done < total:
            raise DownloadError(
                f"the transfer of {self.wanted.url} ended after {done} of {total} bytes; run the same command to continue"
            )

    def write(self, response: HTTPResponse, start: int, total: int | None) -> int:
        """The body into the file; its length then."""
        most = start + int(shutil.disk_usage(self.part.parent).free * _SHARE) if total is None else total
        done = start
        with open(self.part, "ab" if start else "wb") as file:
            for block in blocks(response, self.wanted.url):
                done += len(block)
                if done > most:
                    reason = "which is half of the free disk, and tells no size" if total is None else "which is the announced size"
                    raise self.too_much(most, reason)
                file.write(block)
                if self.progress is not None:
                    self.progress(self.label, done, max(total or 0, done))
        return done

    def too_much(self, most: int, reason: str) -> DownloadError:
        self.drop()
        return _Final(f"{self.wanted.url} sends more than {most} bytes, {reason}; the transfer was stopped")


def check(path: Path, size: int | None, sha256: str | None) -> str:
    """The file's SHA-256; deletes it and raises DownloadError when size or SHA-256 are not the expected ones."""
    found = digest(path)
    if (size is not None and size_of(path) != size) or (sha256 is not None and found != sha256):
        actual = size_of(path)
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


def size_of(path: Path) -> int:
    """Bytes; 0 where there is no file."""
    return path.stat().st_size if path.exists() else 0
