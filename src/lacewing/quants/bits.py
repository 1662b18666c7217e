"""Taking packed fields out of blocks: little-endian numbers, nibbles, pairs of bits, single bits.

`blocks` is uint8 (N, block_bytes); `field` is uint8 (N, ..., n). An unpacked field gets one axis before its last one,
from the low bits to the high ones, because ggml stores the values of a byte n apart, not side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[np.float32]]


def numbers(blocks: Bytes, start: int, count: int, dtype: str) -> Array:
    """`count` little-endian numbers from byte `start` on: (N, count)."""
    kind = np.dtype(dtype)
    return np.ascontiguousarray(blocks[:, start : start + count * kind.itemsize]).view(kind)


def half(blocks: Bytes, start: int) -> Floats:
    """The float16 at byte `start` as float32: (N, 1)."""
    return numbers(blocks, start, 1, "<f2").astype(np.float32)


def nibbles(field: Bytes) -> Bytes:
    """(..., n) bytes to (..., 2, n) values 0..15, low nibbles first."""
    return np.stack((field & 15, field >> 4), axis=-2)


def pairs(field: Bytes) -> Bytes:
    """(..., n) bytes to (..., 4, n) values 0..3, low bits first."""
    return np.stack([field >> shift & 3 for shift in (0, 2, 4, 6)], axis=-2)


def bits(field: Bytes) -> Bytes:
    """(..., n) bytes to (..., 8, n) values 0..1, low bits first."""
    return np.stack([field >> shift & 1 for shift in range(8)], axis=-2)


def bits_in_order(field: Bytes) -> Bytes:
    """(..., n) bytes to (..., 8 n) values 0..1: bit 0 of byte 0, bit 1 of byte 0, ..."""
    return np.unpackbits(field, axis=-1, bitorder="little")


_SIGNS: Floats = 1 - 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=-1, bitorder="little").astype(np.float32)


def signs(field: Bytes) -> Floats:
    """(..., n) bytes to float32 (..., n, 8): -1 where the bit is set, else 1."""
    octets: Floats = _SIGNS[field]
    return octets


def look_up(table: Array, rows: Array) -> Floats:
    """Rows of a code book: (R, n) at (...) to float32 (..., n)."""
    found: Floats = table[rows].astype(np.float32)
    return found
