"""Q4_1: 32 values in 20 bytes, a scale and a minimum.

 0     2     4                20
| d   | m   | q0 q1 ...  q15 |       d, m: float16
              q_k: value k in the low nibble, value k + 16 in the high one

value = d * q + m
"""

from __future__ import annotations

import numpy as np

from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, half, nibbles


def dequantise_blocks(blocks: Bytes) -> Floats:
    q = nibbles(blocks[:, 4:]).reshape(-1, 32).astype(np.float32)
    return half(blocks, 0) * q + half(blocks, 2)


Q4_1 = Quant("Q4_1", 3, 32, 20, dequantise_blocks)
