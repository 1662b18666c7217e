"""The memory of a compiled step that the arguments of its kernels point into."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import psutil

from lacewing.backends.paging import HUGE_FROM, try_huge_pages
from lacewing.backends.weights import WeightView
from lacewing.program.ops import Buffer, View

NO_RESERVE = {"linux": 0x4000, "darwin": 0x40}.get(sys.platform, 0)  # MAP_NORESERVE, which Python has from 3.13 on


def aligned(nbytes: int, dtype: type = np.uint8) -> np.ndarray:
    """Memory on a cache line; pages that are never touched cost nothing."""
    raw = np.empty(nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes].view(dtype)


@dataclass
class Memory:
    """Buffers of a step for `chunk` tokens, by name, and small owned copies of vectors."""

    chunk: int
    buffers: dict[str, np.ndarray] = field(default_factory=dict)
    kept: dict[str, np.ndarray] = field(default_factory=dict)

    def stride(self, buffer: Buffer) -> int:
        """Bytes from one token to the next."""
        return (4 * buffer.width + 63) // 64 * 64

    def address(self, view: View) -> int:
        """Where the view's first token begins."""
        name = view.buffer.name
        if name not in self.buffers:
            self.buffers[name] = aligned(self.chunk * self.stride(view.buffer))
        return int(self.buffers[name].ctypes.data) + 4 * view.start

    def area(self, name: str, nbytes: int) -> int:
        """Named working memory."""
        if name not in self.buffers:
            self.buffers[name] = aligned(nbytes)
        return int(self.buffers[name].ctypes.data)

    def vector(self, weights: Mapping[str, WeightView], name: str, offset: float = 0.0) -> int:
        """A weight as float32, plus an offset, in RAM; for norms and biases, which are small."""
        key = f"{name}+{offset}"
        if key not in self.kept:
            weight = weights[name]  # in several places of its files where each head's are a tensor
            values = np.concatenate([weight.quant.dequantise(np.asarray(part)).reshape(-1) for part in weight.parts])
            kept = aligned(values.nbytes + 64, np.float32)
            kept[: values.size] = values + np.float32(offset)
            self.kept[key] = kept
        return int(self.kept[key].ctypes.data)

    @property
    def nbytes(self) -> int:
        return sum(memory.nbytes for memory in (*self.buffers.values(), *self.kept.values()))


class Reservation:
    """Addresses that never move: a private mapping whose pages cost nothing until they are written, zeros at first.

    `needed` bytes at least, `share` of this machine's RAM if there are addresses for it. Raises MemoryError.
    """

    def __init__(self, needed: int, share: float = 1.0):
        self.nbytes = max(needed, int(share * psutil.virtual_memory().total) if _addresses_are_free() else 0)
        while True:
            try:
                self._mapping = _map(self.nbytes)
                break
            except (OSError, OverflowError, ValueError) as error:
                if self.nbytes == needed:
                    raise MemoryError(f"{needed} bytes of addresses cannot be reserved") from error
                self.nbytes = max(needed, self.nbytes // 2)
        self.memory = np.frombuffer(self._mapping, np.uint8)
        if self.nbytes >= HUGE_FROM:  # a page of a cache is some megabytes, read by many short sequences once each
            try_huge_pages(self._mapping)

    def give_back(self, first: int, end: int) -> None:
        """Whole pages of the system between two bytes; they are zeros afterwards. Where the system cannot, they stay."""
        first = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
        end = end // mmap.PAGESIZE * mmap.PAGESIZE
        if sys.platform != "win32" and first < end:
            self._mapping.madvise(mmap.MADV_DONTNEED, first, end - first)


def _map(nbytes: int) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(-1, nbytes)
    return mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE)


def _addresses_are_free() -> bool:
    """Whether more than is needed may be reserved: Windows counts it as used, and so does a limit of the process."""
    if sys.platform == "win32":
        return False
    import resource

    return resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
