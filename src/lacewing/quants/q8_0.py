"""Q8_0: 32 values in 34 bytes, one scale.

 0     2                      34
| d   | q0 q1 q2 ...     q31 |       d: float16, q: int8

value = d * q
"""

from __future__ import annotations

import numpy as np

from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, half, numbers


def dequantise_blocks(blocks: Bytes) -> Floats:
    return half(blocks, 0) * numbers(blocks, 2, 32, "i1").astype(np.float32)


Q8_0 = Quant("Q8_0", 8, 32, 34, dequantise_blocks)
