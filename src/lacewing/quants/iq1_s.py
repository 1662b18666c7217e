"""IQ1_S: 256 values in 50 bytes, octets of -1, 0, 1 from a code book, groups of 32 with a 3-bit scale and a shift.

 0     2                34                 50
| d   | q: 32 bytes    | h: 8 uint16      |      d: float16
        q_k, and bits 8..10 in bits 3 l .. 3 l + 2 of h_g: row of octet k = 4 g + l
                         h_g: bits 12..14 the scale, bit 15 the sign of the shift

value = d * (2 scale + 1) * (row + shift), shift 0.125 or -0.125
"""

from __future__ import annotations

import numpy as np

from lacewing.quants import grids
from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, half, look_up, numbers

SHIFT = np.float32(0.125)
_HIGH_SHIFTS = np.array((0, 3, 6, 9), np.uint16)


def dequantise_blocks(blocks: Bytes) -> Floats:
    h = numbers(blocks, 34, 8, "<u2")
    scale = half(blocks, 0) * (2 * (h >> 12 & 7) + 1).astype(np.float32)  # (N, 8)
    shift = np.where(h & 0x8000, -SHIFT, SHIFT)  # (N, 8)
    rows = blocks[:, 2:34] | ((h[..., None] >> _HIGH_SHIFTS & 7) << 8).reshape(-1, 32)
    octets = look_up(grids.IQ1_S, rows).reshape(-1, 8, 32)
    return (scale[..., None] * (octets + shift[..., None])).reshape(-1, 256)


IQ1_S = Quant("IQ1_S", 19, 256, 50, dequantise_blocks)
