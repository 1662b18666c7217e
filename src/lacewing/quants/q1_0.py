"""Q1_0: 128 values in 18 bytes, signs and one scale.

 0     2                18
| d   | b: 16 bytes    |      d: float16; bit i (lowest first) of b is value i

value = d where the bit is set, else -d
"""

from __future__ import annotations

import numpy as np

from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, bits_in_order, half


def dequantise_blocks(blocks: Bytes) -> Floats:
    d = half(blocks, 0)
    return np.where(bits_in_order(blocks[:, 2:]), d, -d)


Q1_0 = Quant("Q1_0", 41, 128, 18, dequantise_blocks)
