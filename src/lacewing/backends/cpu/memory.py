"""The memory of a compiled step that the arguments of its kernels point into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lacewing.backends.base import WeightView
from lacewing.program.ops import Buffer, View


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
        """A weight as float32, plus an offset, in own memory; for norms and biases, which are small."""
        key = f"{name}+{offset}"
        if key not in self.kept:
            values = weights[name].quant.dequantise(np.asarray(weights[name].data)).reshape(-1)
            kept = aligned(values.nbytes + 64, np.float32)
            kept[: values.size] = values + np.float32(offset)
            self.kept[key] = kept
        return int(self.kept[key].ctypes.data)

    @property
    def nbytes(self) -> int:
        return sum(memory.nbytes for memory in (*self.buffers.values(), *self.kept.values()))
