"""What a compiled step consists of: lowered ops and the memory that their arguments point into."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lacewing.backends.base import WeightView
from lacewing.program.ops import Buffer, View

Word = int | Callable[[], int]  # a value, or where to find it when weights have moved


def float_word(value: float) -> int:
    """A float32 in the low half of a word."""
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def double_word(value: float) -> int:
    return int(struct.unpack("<q", struct.pack("<d", value))[0])


def aligned(nbytes: int, dtype: type = np.uint8) -> np.ndarray:
    """Memory on a cache line; pages that are never touched cost nothing."""
    raw = np.empty(nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes].view(dtype)


class LoweredOp:
    """A kernel with its arguments: the words of its layout (arguments.py), those not given are 0.

    With `barrier`, all earlier ops must be done before it. A word named `counter` is filled in by the step.
    """

    def __init__(self, kernel: str, layout: Any, **words: Word):
        self.kernel, self.layout, self.barrier = kernel, layout, True
        self.words: dict[str, Word] = dict.fromkeys(layout._fields, 0)
        self.set(**words)

    def set(self, **words: Word) -> None:
        """Give words other values."""
        if unknown := words.keys() - self.words.keys():
            raise KeyError(f"{self.kernel} has no arguments {', '.join(unknown)}")
        self.words.update(words)

    def write(self, arguments: np.ndarray, all_words: bool) -> None:
        """Put the words into int64 memory: all, or those that weights have moved."""
        for name, word in self.words.items():
            if callable(word):
                arguments[getattr(self.layout, name) // 8] = word()
            elif all_words:
                arguments[getattr(self.layout, name) // 8] = word


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
