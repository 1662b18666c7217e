"""Q4_0: 32 values in 18 bytes, one scale.

 0     2                      18
| d   | q0 q1 q2 ...     q15 |       d: float16
        q_k: value k in the low nibble, value k + 16 in the high one

value = d * (q - 8)
"""

from __future__ import annotations

import numpy as np

from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, half, nibbles


def dequantise_blocks(blocks: Bytes) -> Floats:
    q = nibbles(blocks[:, 2:]).reshape(-1, 32).astype(np.int8) - np.int8(8)
    return half(blocks, 0) * q.astype(np.float32)


Q4_0 = Quant("Q4_0", 2, 32, 18, dequantise_blocks)
