"""Q2_K: 256 values in 84 bytes, a 4-bit scale and a 4-bit minimum for every 16 values.

 0               16                            80    82    84
| s0 s1 ... s15 | q: 2 runs of 32 bytes       | d   | m   |      d, m: float16
  low nibble: scale, high nibble: minimum
                  run h, byte l: values 128 h + 32 j + l in bits 2 j and 2 j + 1

value i = d * scale[i / 16] * q - m * minimum[i / 16]
"""

from __future__ import annotations

import numpy as np

from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, half, pairs


def dequantise_blocks(blocks: Bytes) -> Floats:
    scales = blocks[:, :16]
    scale = half(blocks, 80) * (scales & 15).astype(np.float32)  # (N, 16)
    minimum = half(blocks, 82) * (scales >> 4).astype(np.float32)  # (N, 16)
    q = pairs(blocks[:, 16:80].reshape(-1, 2, 32)).reshape(-1, 16, 16).astype(np.float32)
    return (scale[..., None] * q - minimum[..., None]).reshape(-1, 256)


Q2_K = Quant("Q2_K", 10, 256, 84, dequantise_blocks)
