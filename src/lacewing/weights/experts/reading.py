"""Reads of experts: positioned, several at a time, past the system's page cache or through it, whichever is faster.

A copy in the page cache besides the one in a slot would take memory that slots can use. Direct reads need whole pages of the file
and memory that begins on a page; where they are slower, or a file system does not take them, reads are buffered, and the system is
told to forget them.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lacewing.errors import ModelFormatError
from lacewing.formats.checkpoint import ByteRange, Identity
from lacewing.weights.experts.descriptors import OpenFile, OpenFiles, most_open
from lacewing.weights.experts.held import HeldFiles
from lacewing.weights.experts.readers import Readers
from lacewing.weights.experts.source import PAGE, offset_in

READERS = 4  # threads; a disk is busy with that many reads of a megabyte
_PATIENCE = 0.15  # seconds that closing waits for reads that are under way


class ReadWay(NamedTuple):
    """`direct`: past the page cache, where that can be done. `threads` read at a time."""

    direct: bool = True
    threads: int = READERS

    def __str__(self) -> str:
        return f"{'direct' if self.direct else 'buffered'}, {self.threads} threads"


class ExpertReader:
    """Reads ranges of some files. `files`: what they were when they were opened first; others of their names are refused."""

    def __init__(self, files: Mapping[Path, Identity], way: ReadWay | None = None):
        self._way = way or ReadWay()
        self._paths, self._files = tuple(files), OpenFiles(files, self._way.direct)
        self._readers = Readers(self._way.threads, "lacewing-experts")

    @property
    def way(self) -> ReadWay:
        """How it reads: buffered, once a file system has refused direct reads."""
        return self._way._replace(direct=self._files.direct)

    def submit(self, part: ByteRange, region: np.ndarray) -> Future[None]:
        """Begin to read a range into `region`, whole pages of memory, so that its first byte comes to `offset_in(part)`.

        The result raises ModelFormatError for a file that cannot be read, is too short or was replaced.
        """
        return self._readers.submit(lambda: self._read(part, region))

    def let_begin(self) -> None:
        """Pause, some 50 microseconds, so that a thread takes up what was submitted. It needs the GIL for that, and whoever submits
        more keeps it till the next kernel runs, half a millisecond in which the disk would do nothing."""
        time.sleep(1e-6)

    def hold(self) -> HeldFiles | None:
        """All files, for whoever reads without this; None: they are too many."""
        return HeldFiles(self._files, self._paths, self._way.threads) if len(self._paths) <= most_open() // 2 else None

    def forget(self, part: ByteRange) -> None:
        """Have the system drop a range from its page cache, so that its next read comes from the disk."""
        with self._files.use(part.path) as file:
            _forget(file, part.offset - offset_in(part), offset_in(part) + part.nbytes)

    def _read(self, part: ByteRange, region: np.ndarray) -> None:
        while True:
            with self._files.use(part.path) as file:
                if _read_from(file, part, region):
                    return
                self._files.refuse_direct(part.path, file)

    def close(self) -> None:
        """No read begins any more. Those that are under way end by themselves, soon or when the disk answers; their memory and
        files stay until then."""
        self._readers.close(_PATIENCE)
        self._files.close()


def _read_from(file: OpenFile, part: ByteRange, region: np.ndarray) -> bool:
    """Whether it was read; direct reads may be refused."""
    inner = offset_in(part)
    begin, needed = part.offset - inner, inner + part.nbytes
    length = -(-needed // PAGE) * PAGE if file.direct else needed
    done = 0
    while done < needed:
        try:
            count = os.preadv(file.descriptor, [region[done:length].data], begin + done)
        except OSError as error:
            if file.direct and error.errno == errno.EINVAL:  # a file system that opens for direct reads, but refuses them
                return False
            raise ModelFormatError(part.path, f"cannot be read: {error.strerror}", offset=begin + done) from None
        if not count:
            raise ModelFormatError(part.path, "became shorter while experts were read from it", offset=begin + done)
        whole = count // PAGE * PAGE if file.direct and done + count < needed else count
        if not whole:  # a direct read can only go on at a page
            return False
        done += whole
    if not file.direct:
        _forget(file, begin, length)
    return True


def _forget(file: OpenFile, begin: int, nbytes: int) -> None:
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.descriptor, begin, nbytes, os.POSIX_FADV_DONTNEED)
