"""TQ2_0: 256 ternary values in 66 bytes, four to a byte, one scale.

 0                       64    66
| q: 2 runs of 32 bytes | d   |     d: float16
  run h, byte l: values 128 h + 32 j + l in bits 2 j and 2 j + 1

value = d * (q - 1)
"""

from __future__ import annotations

import numpy as np

from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, half, pairs


def dequantise_blocks(blocks: Bytes) -> Floats:
    q = pairs(blocks[:, :64].reshape(-1, 2, 32)).reshape(-1, 256).astype(np.int8) - np.int8(1)
    return half(blocks, 64) * q.astype(np.float32)


TQ2_0 = Quant("TQ2_0", 35, 256, 66, dequantise_blocks)
