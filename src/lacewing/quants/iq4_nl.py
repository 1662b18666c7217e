"""IQ4_NL: 32 values in 18 bytes, Q4_0 with uneven steps.

 0     2                      18
| d   | q0 q1 q2 ...     q15 |       d: float16
        q_k: value k in the low nibble, value k + 16 in the high one

value = d * VALUES[q]
"""

from __future__ import annotations

import numpy as np

from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, half, nibbles

VALUES = np.array((-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113), np.int8)  # (16,)


def dequantise_blocks(blocks: Bytes) -> Floats:
    q = nibbles(blocks[:, 2:]).reshape(-1, 32)
    return half(blocks, 0) * VALUES[q].astype(np.float32)


IQ4_NL = Quant("IQ4_NL", 20, 32, 18, dequantise_blocks)
