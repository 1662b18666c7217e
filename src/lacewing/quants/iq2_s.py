"""IQ2_S: 256 values in 82 bytes, octets from a code book with free signs, a 4-bit scale for every 16 values.

 0     2            34           66           74           82
| d   | q: 32 b.   | s: 32 b.   | h: 8 bytes | c: 8 bytes |      d: float16
        q_k, and bits 8..9 in the pair k % 4 of h[k / 4]: row of octet k
                     s_k: sign bits of octet k
                                               nibble k of c: scale of the values 16 k ..

value = d * (0.5 + scale) / 4 * sign * row
"""

from __future__ import annotations

import numpy as np

from lacewing.quants import grids
from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, look_up, pairs, signs
from lacewing.quants.iq2_xs import octet_scales


def dequantise_blocks(blocks: Bytes) -> Floats:
    high = pairs(blocks[:, 66:74, None]).reshape(-1, 32).astype(np.uint16)
    rows = (blocks[:, 2:34] | high << 8).reshape(-1, 16, 2)
    sign = signs(blocks[:, 34:66]).reshape(-1, 16, 2, 8)
    return (octet_scales(blocks) * look_up(grids.IQ2_S, rows) * sign).reshape(-1, 256)


IQ2_S = Quant("IQ2_S", 22, 256, 82, dequantise_blocks)
