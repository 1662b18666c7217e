"""IQ4_XS: 256 values in 136 bytes, IQ4_NL with a signed 6-bit scale for every 32 values.

 0     2     4             8                              136
| d   | h   | l: 4 bytes  | q: 8 runs of 16 bytes        |      d: float16, h: uint16
        bits 2 g and 2 g + 1: upper bits of scale g
              nibble g: lower bits of scale g
                            run g, byte k: value 32 g + k in the low nibble, 32 g + 16 + k in the high one

value i = d * (scale[i / 32] - 32) * VALUES[q]
"""

from __future__ import annotations

import numpy as np

from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, half, nibbles, pairs
from lacewing.quants.iq4_nl import VALUES


def dequantise_blocks(blocks: Bytes) -> Floats:
    low = nibbles(blocks[:, 4:8, None]).reshape(-1, 8)
    high = pairs(blocks[:, 2:4, None]).reshape(-1, 8)
    scale = half(blocks, 0) * ((low | high << 4).astype(np.int8) - np.int8(32)).astype(np.float32)  # (N, 8)
    q = nibbles(blocks[:, 8:].reshape(-1, 8, 16)).reshape(-1, 8, 32)
    return (scale[..., None] * VALUES[q].astype(np.float32)).reshape(-1, 256)


IQ4_XS = Quant("IQ4_XS", 23, 256, 136, dequantise_blocks)
