"""Q5_K: 256 values in 176 bytes, Q4_K with a fifth bit.

 0     2     4              16            48                            176
| d   | m   | s: 12 bytes  | h: 32 bytes | q: 4 runs of 32 bytes       |    d, m: float16
              as in Q4_K     byte l, bit b: fifth bit of value 32 b + l
                                           run r, byte l: value 64 r + l low, 64 r + 32 + l high

value i = d * scale[i / 32] * (q + 16 h) - m * minimum[i / 32]
"""

from __future__ import annotations

import numpy as np

from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, bits, half, nibbles
from lacewing.quants.q4_k import unpack_scales


def dequantise_blocks(blocks: Bytes) -> Floats:
    scales, minima = unpack_scales(blocks[:, 4:16])
    scale = half(blocks, 0) * scales.astype(np.float32)  # (N, 8)
    minimum = half(blocks, 2) * minima.astype(np.float32)  # (N, 8)
    low = nibbles(blocks[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    q = (low | bits(blocks[:, 16:48]) << 4).astype(np.float32)
    return (scale[..., None] * q - minimum[..., None]).reshape(-1, 256)


Q5_K = Quant("Q5_K", 13, 256, 176, dequantise_blocks)
