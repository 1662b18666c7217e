"""Q3_K: 256 values in 110 bytes, a signed 6-bit scale for every 16 values.

 0            32                        96             108   110
| h: 32 bytes| q: 2 runs of 32 bytes   | s: 12 bytes  | d   |      d: float16
  byte l, bit b: third bit of value 32 b + l
               run h, byte l: values 128 h + 32 j + l in bits 2 j and 2 j + 1
                                         byte k < 8: low nibbles of the scales k and k + 8
                                         byte 8 + k: high pairs of the scales k, k + 4, k + 8, k + 12

value i = d * (scale[i / 16] - 32) * (q + 4 h - 4)
"""

from __future__ import annotations

import numpy as np

from lacewing.quants.base import Quant
from lacewing.quants.bits import Array, Bytes, Floats, bits, half, nibbles, pairs


def unpack_scales(field: Bytes) -> Array:
    """uint8 (N, 12) to int8 (N, 16), -32 to 31."""
    low = nibbles(field[:, :8]).reshape(-1, 16)
    high = pairs(field[:, 8:]).reshape(-1, 16)
    return (low | high << 4).astype(np.int8) - np.int8(32)


def dequantise_blocks(blocks: Bytes) -> Floats:
    scale = half(blocks, 108) * unpack_scales(blocks[:, 96:108]).astype(np.float32)  # (N, 16)
    low = pairs(blocks[:, 32:96].reshape(-1, 2, 32)).reshape(-1, 16, 16)
    high = bits(blocks[:, :32]).reshape(-1, 16, 16)
    q = (low | high << 2).astype(np.int8) - np.int8(4)
    return (scale[..., None] * q.astype(np.float32)).reshape(-1, 256)


Q3_K = Quant("Q3_K", 11, 256, 110, dequantise_blocks)
