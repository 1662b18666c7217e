"""Bytes of opened checkpoints: as views of the mapped file, or by positioned reads into memory of the caller's.

One mapping a file, shared by all its views and kept alive by them; the last view that goes unmaps it.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from lacewing.errors import Cancelled, ModelFormatError
from lacewing.formats.checkpoint import ByteRange, Identity
from lacewing.formats.files import open_regular

CHUNK = 16 * 2**20  # bytes between two looks at `cancelled`

_mappings: weakref.WeakValueDictionary[tuple[str, Identity], np.ndarray] = weakref.WeakValueDictionary()


def identity(path: Path) -> Identity:
    """What tells this file from a later one of the same name or a changed one. Raises ModelFormatError if it is gone.

    The time of the last change of content can be set back by anybody; that of the file's entry (`st_ctime_ns`) cannot.
    """
    try:
        facts = os.stat(path)
    except OSError as error:
        raise ModelFormatError(path, f"can no longer be read: {error.strerror}") from None
    return identity_of(facts)


def identity_of(facts: os.stat_result) -> Identity:
    """As `identity`, of what was found out about a file, such as one that is open."""
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _check(part: ByteRange, expected: Identity | None) -> Identity:
    """The identity of the file. Raises ModelFormatError if it is too short now, or not the expected one."""
    found = identity(part.path)
    if found[2] < part.offset + part.nbytes:
        needed = part.offset + part.nbytes
        raise ModelFormatError(part.path, f"became shorter after it was opened: {found[2]} bytes, {needed} are needed")
    if expected is not None and found != expected:
        raise ModelFormatError(part.path, "changed or was replaced after it was opened; load the model again")
    return found


def mapped(part: ByteRange, expected: Identity | None = None) -> np.ndarray:
    """uint8 (nbytes,), read-only, paged in by use; keeps its file mapped. Raises ModelFormatError if the file has changed."""
    if part.nbytes == 0:
        return np.empty(0, np.uint8)
    key = (str(part.path), _check(part, expected))
    whole = _mappings.get(key)
    if whole is None:
        file, size = open_regular(part.path)
        with file:
            if size < part.offset + part.nbytes:
                raise ModelFormatError(part.path, f"became shorter after it was opened: {size} bytes")
            whole = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        _mappings[key] = whole
    return whole[part.offset : part.offset + part.nbytes]


def release(view: np.ndarray) -> None:
    """Give the pages of a view of `mapped` back to the system; they are read again when they are used. Does nothing elsewhere."""
    whole = view if view.base is None or isinstance(view.base, memoryview) else view.base
    option = getattr(mmap, "MADV_DONTNEED", None)
    if option is None or not any(whole is mapping for mapping in _mappings.values()):
        return  # above all, it would wipe memory that no file stands behind
    memory: Any = whole.base  # the memoryview that NumPy puts around the mapping
    area: mmap.mmap = memory.obj
    start = view.ctypes.data - whole.ctypes.data
    inner = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE  # a page shared with a neighbour stays
    end = (start + view.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > inner:
        area.madvise(option, inner, end - inner)


class Reader:
    """Positioned reads of ranges, not through a mapping; the last one's file stays open until `close`. For one thread, range by
    range.

    `expected`: what the files were when they were opened first. `advance` is told the bytes of each chunk, and `cancelled` asked
    before it.
    """

    def __init__(
        self,
        expected: Mapping[Path, Identity] | None = None,
        advance: Callable[[int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ):
        self._expected, self._advance, self._cancelled = expected or {}, advance, cancelled
        self._file: tuple[Path, BinaryIO] | None = None
        self._buffer = np.empty(0, np.uint8)

    def into(self, part: ByteRange, out: np.ndarray) -> None:
        """Fill `out`, uint8 (nbytes,). Raises Cancelled, or ModelFormatError: a file that is unreadable, too short or changed."""
        for _ in self._chunks(part, lambda start: out[start : start + CHUNK]):
            pass

    def pieces(self, part: ByteRange, nbytes: int) -> Iterator[np.ndarray]:
        """The range piece by piece, uint8 (nbytes,) or the rest, each valid until the next. Raises as `into`."""
        if self._buffer.size < nbytes:  # which is used again and again: fresh memory costs more than what is copied to it
            self._buffer = np.empty(nbytes, np.uint8)
        buffer, filled = self._buffer[:nbytes], 0
        for count in self._chunks(part, lambda start: buffer[start % nbytes :][: part.nbytes - start]):
            filled += count
            if filled % nbytes == 0 or filled == part.nbytes:
                yield buffer[: (filled - 1) % nbytes + 1]

    def _chunks(self, part: ByteRange, target: Callable[[int], np.ndarray]) -> Iterator[int]:
        """Read a range chunk by chunk, each to `target` of the bytes that are there already; how many each time."""
        if part.nbytes == 0:
            return
        _check(part, self._expected.get(part.path))
        file, done = self._open(part.path), 0
        file.seek(part.offset)
        while done < part.nbytes:
            if self._cancelled is not None and self._cancelled():
                raise Cancelled(f"reading {part.path} was cancelled")
            count = _read_chunk(file, part, target(done).data, done)
            done += count
            if self._advance is not None:
                self._advance(count)
            yield count

    def _open(self, path: Path) -> BinaryIO:
        """One at a time: a checkpoint may have hundreds, and some systems let a process have 256."""
        if self._file is None or self._file[0] != path:
            self.close()
            self._file = path, open_regular(path)[0]
        return self._file[1]

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file[1].close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()


def _read_chunk(file: BinaryIO, part: ByteRange, target: memoryview, done: int) -> int:
    try:
        count: int = file.readinto(target)  # type: ignore[attr-defined]
    except OSError as error:
        raise ModelFormatError(part.path, f"cannot be read: {error.strerror}", offset=part.offset + done) from None
    if not count:
        raise ModelFormatError(part.path, "became shorter while it was read", offset=part.offset + done)
    return count
