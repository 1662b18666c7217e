"""Q5_1: 32 values in 24 bytes, a scale and a minimum.

 0     2     4              8                24
| d   | m   | h            | q0 q1 ...  q15 |    d, m: float16
              h: bit k is the fifth bit of value k
                             q_k: value k in the low nibble, value k + 16 in the high one

value = d * (q + 16 h) + m
"""

from __future__ import annotations

import numpy as np

from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, bits_in_order, half, nibbles


def dequantise_blocks(blocks: Bytes) -> Floats:
    q = nibbles(blocks[:, 8:]).reshape(-1, 32) | bits_in_order(blocks[:, 4:8]) << 4
    return half(blocks, 0) * q.astype(np.float32) + half(blocks, 2)


Q5_1 = Quant("Q5_1", 7, 32, 24, dequantise_blocks)
