"""Reads of experts: positioned, several at a time, past the system's page cache where it can be done.

A copy in the page cache besides the one in a slot would take memory that slots can use. Direct reads need whole pages of the file
and memory that begins on a page; where a file system does not take them, reads are buffered, and the system is told to forget them.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from lacewing.errors import ModelFormatError
from lacewing.formats.checkpoint import ByteRange, Identity
from lacewing.formats.files import open_regular
from lacewing.formats.read import identity
from lacewing.weights.experts.source import PAGE

try:
    import fcntl
except ImportError:  # Windows, where experts are not streamed
    fcntl = None  # type: ignore[assignment]

READERS = 4  # threads; a disk is busy with that many reads of a megabyte
_PATIENCE = 0.5  # seconds that closing waits for reads that are under way
_DIRECT = getattr(os, "O_DIRECT", 0)


class ExpertReader:
    """Reads ranges of some files. `files`: what they were when they were opened first; others of their names are refused."""

    def __init__(self, files: Mapping[Path, Identity]):
        self._files, self._lock = files, threading.Lock()
        self._open: dict[Path, tuple[int, bool]] = {}  # descriptor, whether its reads are direct
        self._descriptors: list[int] = []  # all that were opened
        self._pool = ThreadPoolExecutor(READERS, "lacewing-experts")

    def submit(self, part: ByteRange, region: np.ndarray) -> Future[None]:
        """Begin to read a range into `region`, whole pages of memory, so that its first byte comes to `offset_in(part)`.

        The result raises ModelFormatError for a file that cannot be read, is too short or was replaced.
        """
        return self._pool.submit(self._read, part, region)

    def _read(self, part: ByteRange, region: np.ndarray) -> None:
        descriptor, direct = self._descriptor(part.path)
        if direct and not self._read_from(descriptor, True, part, region):
            descriptor = self._buffered(part.path)
            direct = False
        if not direct:
            self._read_from(descriptor, False, part, region)

    def _read_from(self, descriptor: int, direct: bool, part: ByteRange, region: np.ndarray) -> bool:
        """Whether it was read; direct reads may be refused."""
        inner = offset_in(part)
        begin, needed = part.offset - inner, inner + part.nbytes
        length = -(-needed // PAGE) * PAGE if direct else needed
        done = 0
        while done < needed:
            try:
                count = os.preadv(descriptor, [region[done:length].data], begin + done)
            except OSError as error:
                if direct and error.errno == errno.EINVAL:  # a file system that opens for direct reads, but refuses them
                    return False
                raise ModelFormatError(part.path, f"cannot be read: {error.strerror}", offset=begin + done) from None
            if not count:
                raise ModelFormatError(part.path, "became shorter while experts were read from it", offset=begin + done)
            whole = count // PAGE * PAGE if direct and done + count < needed else count
            if not whole:  # a direct read can only go on at a page
                return False
            done += whole
        if not direct and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, begin, length, os.POSIX_FADV_DONTNEED)
        return True

    def _descriptor(self, path: Path) -> tuple[int, bool]:
        with self._lock:
            if path not in self._open:
                self._open[path] = self._opened(path, direct=bool(_DIRECT))
            return self._open[path]

    def _buffered(self, path: Path) -> int:
        """Once direct reads were refused."""
        with self._lock:
            if self._open[path][1]:
                self._open[path] = self._opened(path, direct=False)
            return self._open[path][0]

    def _opened(self, path: Path, direct: bool) -> tuple[int, bool]:
        """Raises ModelFormatError for what is no regular file, or another file than the one that was opened first."""
        with open_regular(path)[0] as file:
            try:
                descriptor = os.open(path, os.O_RDONLY | _DIRECT) if direct else os.dup(file.fileno())
            except OSError:
                descriptor, direct = os.dup(file.fileno()), False
        self._descriptors.append(descriptor)
        if self._files.get(path) not in (None, identity(path)):
            raise ModelFormatError(path, "changed or was replaced after it was opened; load the model again")
        if not direct and (no_cache := getattr(fcntl, "F_NOCACHE", None)) is not None:  # of macOS
            fcntl.fcntl(descriptor, no_cache, 1)
        return descriptor, direct

    def close(self) -> None:
        """No read begins any more. Those that are under way end by themselves, soon or when the disk answers; their memory and
        files stay until then."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        ending = threading.Thread(target=self._end, name="lacewing-experts-end", daemon=True)
        ending.start()
        ending.join(_PATIENCE)

    def _end(self) -> None:
        self._pool.shutdown()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()


def offset_in(part: ByteRange) -> int:
    """Where a range begins in the region that it is read into."""
    return part.offset % PAGE
