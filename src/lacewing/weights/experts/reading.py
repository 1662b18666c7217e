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

READERS = 4  # threads; a disk is busy with that many reads of a megabyte
_DIRECT = getattr(os, "O_DIRECT", 0)


class ExpertReader:
    """Reads ranges of some files. `files`: what they were when they were opened first; others of their names are refused."""

    def __init__(self, files: Mapping[Path, Identity]):
        self._files, self._lock = files, threading.Lock()
        self._open: dict[Path, tuple[int, bool]] = {}  # descriptor, whether its reads are direct
        self._pool = ThreadPoolExecutor(READERS, "lacewing-experts")

    def submit(self, part: ByteRange, region: np.ndarray) -> Future[None]:
        """Begin to read a range into `region`, whole pages of memory, so that its first byte comes to `offset_in(part)`.

        The result raises ModelFormatError for a file that cannot be read, is too short or was replaced.
        """
        return self._pool.submit(self._read, part, region)

    def _read(self, part: ByteRange, region: np.ndarray) -> None:
        descriptor, direct = self._descriptor(part.path)
        inner = offset_in(part)
        begin, needed = part.offset - inner, inner + part.nbytes
        length = -(-needed // PAGE) * PAGE if direct else needed
        done = 0
        while done < needed:
            count = self._read_once(part, descriptor, region[done:length], begin + done)
            whole = count // PAGE * PAGE if direct and done + count < needed else count
            if count and not whole:  # a direct read can only go on at a page
                return self._read_buffered(part, region)
            if not count:
                raise ModelFormatError(part.path, "became shorter while experts were read from it", offset=begin + done)
            done += whole
        if not direct and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, begin, length, os.POSIX_FADV_DONTNEED)

    def _read_once(self, part: ByteRange, descriptor: int, target: np.ndarray, offset: int) -> int:
        try:
            return os.preadv(descriptor, [target.data], offset)
        except OSError as error:
            if error.errno == errno.EINVAL and self._open[part.path][1]:
                return 1  # a file system that opens for direct reads, but refuses them: go on buffered
            raise ModelFormatError(part.path, f"cannot be read: {error.strerror}", offset=offset) from None

    def _read_buffered(self, part: ByteRange, region: np.ndarray) -> None:
        with self._lock:
            if self._open[part.path][1]:
                self._open[part.path] = self._opened(part.path, direct=False)
        self._read(part, region)

    def _descriptor(self, path: Path) -> tuple[int, bool]:
        with self._lock:
            if path not in self._open:
                self._open[path] = self._opened(path, direct=bool(_DIRECT))
            return self._open[path]

    def _opened(self, path: Path, direct: bool) -> tuple[int, bool]:
        """Raises ModelFormatError for another file than the one that was opened first."""
        if direct:
            try:
                descriptor = os.open(path, os.O_RDONLY | _DIRECT)
            except OSError:
                return self._opened(path, direct=False)
        else:
            with open_regular(path)[0] as file:
                descriptor = os.dup(file.fileno())
        if self._files.get(path) not in (None, identity(path)):
            os.close(descriptor)
            raise ModelFormatError(path, "changed or was replaced after it was opened; load the model again")
        return descriptor, direct

    def close(self) -> None:
        """Waits for the reads that are under way, and closes the files."""
        self._pool.shutdown(cancel_futures=True)
        for descriptor, _ in self._open.values():
            os.close(descriptor)
        self._open.clear()


def offset_in(part: ByteRange) -> int:
    """Where a range begins in the region that it is read into."""
    return part.offset % PAGE
