"""TQ1_0: 256 ternary values in 54 bytes, five to a byte, one scale.

 0             32            48    52    54
| a: 32 bytes | b: 16 bytes | c   | d   |     d: float16
  a, byte l: values 32 n + l, n = 0..4
                b, byte l: values 160 + 16 n + l, n = 0..4
                              c, byte l: values 240 + 4 n + l, n = 0..3

A byte is a fraction of 256 in base 3; digit n is the leading one of byte * 3^n mod 256.
value = d * (digit - 1)
"""

from __future__ import annotations

import numpy as np

from lacewing.quants.base import Quant
from lacewing.quants.bits import Array, Bytes, Floats, half

_POWERS = np.array((1, 3, 9, 27, 81), np.uint8)


def _digits(field: Bytes, count: int) -> Array:
    """uint8 (N, n) to int8 (N, count * n) of 0, 1, 2; the multiplication wraps on purpose."""
    shifted = field[:, None, :] * _POWERS[:count, None]
    return (shifted.astype(np.uint16) * 3 >> 8).astype(np.int8).reshape(len(field), count * field.shape[1])


def dequantise_blocks(blocks: Bytes) -> Floats:
    digits = np.concatenate((_digits(blocks[:, :32], 5), _digits(blocks[:, 32:48], 5), _digits(blocks[:, 48:52], 4)), axis=-1)
    return half(blocks, 52) * (digits - np.int8(1)).astype(np.float32)


TQ1_0 = Quant("TQ1_0", 34, 256, 54, dequantise_blocks)
