"""IQ2_XS: 256 values in 74 bytes, octets from a code book with signs, a 4-bit scale for every 16 values.

 0     2                          66               74
| d   | q: 32 uint16             | s: 8 bytes     |      d: float16
        bits 0..8: row of the octet, bits 9..15: its sign index
                                   nibble k: scale of the values 16 k ..

value = d * (0.5 + scale) / 4 * sign * row
"""

from __future__ import annotations

import numpy as np

from lacewing.quants import grids
from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, half, look_up, nibbles, numbers, signs


def octet_scales(blocks: Bytes) -> Floats:
    """The last 8 bytes hold 16 scales; float32 (N, 16, 1, 1), the block's own scale included."""
    scale = nibbles(blocks[:, -8:, None]).reshape(-1, 16)
    return (half(blocks, 0) * (np.float32(0.5) + scale) * np.float32(0.25))[..., None, None]


def dequantise_blocks(blocks: Bytes) -> Floats:
    q = numbers(blocks, 2, 32, "<u2").reshape(-1, 16, 2)
    return (octet_scales(blocks) * look_up(grids.IQ2_XS, q & 511) * signs(grids.SIGNS[q >> 9])).reshape(-1, 256)


IQ2_XS = Quant("IQ2_XS", 17, 256, 74, dequantise_blocks)
