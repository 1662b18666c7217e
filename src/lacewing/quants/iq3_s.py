"""IQ3_S: 256 values in 110 bytes, quads from a code book with free signs, a 4-bit scale for every 32 values.

 0     2            66           74           106          110
| d   | q: 64 b.   | h: 8 bytes | s: 32 b.   | c: 4 bytes |      d: float16
        q_k, and bit 8 in bit k % 8 of h[k / 8]: row of the values 4 k .. 4 k + 3
                                  s_k: sign bits of octet k
                                               nibble g of c: scale of group g

value = d * (1 + 2 scale) * sign * row
"""

from __future__ import annotations

import numpy as np

from lacewing.quants import grids
from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, bits_in_order, half, look_up, nibbles, signs


def dequantise_blocks(blocks: Bytes) -> Floats:
    scale = half(blocks, 0) * (1 + 2 * nibbles(blocks[:, 106:, None]).reshape(-1, 8)).astype(np.float32)
    rows = blocks[:, 2:66] | bits_in_order(blocks[:, 66:74]).astype(np.uint16) << 8
    quads = look_up(grids.IQ3_S, rows).reshape(-1, 8, 32)
    return (scale[..., None] * quads * signs(blocks[:, 74:106]).reshape(-1, 8, 32)).reshape(-1, 256)


IQ3_S = Quant("IQ3_S", 21, 256, 110, dequantise_blocks)
