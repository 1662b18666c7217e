"""Q6_K: 256 values in 210 bytes, an int8 scale for every 16 values.

 0                       128                    192             208   210
| q: 2 runs of 64 bytes | h: 2 runs of 32 bytes| s0 ...   s15  | d   |     d: float16, s: int8
  run r, byte l: value 128 r + l in the low nibble, 128 r + 64 + l in the high one
                          run r, byte l: bits 4..5 of value 128 r + 32 j + l in bits 2 j and 2 j + 1

value i = d * s[i / 16] * (q + 16 h - 32)
"""

from __future__ import annotations

import numpy as np

from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, half, nibbles, numbers, pairs


def dequantise_blocks(blocks: Bytes) -> Floats:
    scale = half(blocks, 208) * numbers(blocks, 192, 16, "i1").astype(np.float32)  # (N, 16)
    low = nibbles(blocks[:, :128].reshape(-1, 2, 64)).reshape(-1, 16, 16)
    high = pairs(blocks[:, 128:192].reshape(-1, 2, 32)).reshape(-1, 16, 16)
    q = (low | high << 4).astype(np.int8) - np.int8(32)
    return (scale[..., None] * q.astype(np.float32)).reshape(-1, 256)


Q6_K = Quant("Q6_K", 14, 256, 210, dequantise_blocks)
