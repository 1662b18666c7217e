"""Q5_0: 32 values in 22 bytes, one scale.

 0     2              6                22
| d   | h            | q0 q1 ...  q15 |    d: float16
        h: bit k is the fifth bit of value k
                       q_k: value k in the low nibble, value k + 16 in the high one

value = d * (q + 16 h - 16)
"""

from __future__ import annotations

import numpy as np

from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, bits_in_order, half, nibbles


def dequantise_blocks(blocks: Bytes) -> Floats:
    q = nibbles(blocks[:, 6:]).reshape(-1, 32) | bits_in_order(blocks[:, 2:6]) << 4
    return half(blocks, 0) * (q.astype(np.int8) - np.int8(16)).astype(np.float32)


Q5_0 = Quant("Q5_0", 6, 32, 22, dequantise_blocks)
