"""Q2_0: 64 values in 18 bytes, one scale.

 0     2                18
| d   | q: 16 bytes    |      d: float16; value i in bits 2 (i % 4) and 2 (i % 4) + 1 of byte i / 4

value = d * (q - 1)
"""

from __future__ import annotations

import numpy as np

from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, half, pairs


def dequantise_blocks(blocks: Bytes) -> Floats:
    q = pairs(blocks[:, 2:, None]).reshape(-1, 64).astype(np.int8) - np.int8(1)
    return half(blocks, 0) * q.astype(np.float32)


Q2_0 = Quant("Q2_0", 42, 64, 18, dequantise_blocks)
