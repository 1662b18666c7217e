"""IQ3_XXS: 256 values in 98 bytes, quads from a code book, groups of 32 with signs and a 4-bit scale.

 0     2                       66                 98
| d   | q: 64 bytes           | w: 8 uint32      |      d: float16
        q_k: row of the values 4 k .. 4 k + 3
                                w_g: bits 7 l .. 7 l + 6 are the sign index of octet l, bits 28..31 the scale

value = d * (0.5 + scale) / 2 * sign * row
"""

from __future__ import annotations

import numpy as np

from lacewing.quants import grids
from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, half, look_up, numbers
from lacewing.quants.iq2_xxs import sign_words


def dequantise_blocks(blocks: Bytes) -> Floats:
    words = numbers(blocks, 66, 8, "<u4")  # (N, 8)
    scale = half(blocks, 0) * (np.float32(0.5) + (words >> 28).astype(np.float32)) * np.float32(0.5)
    rows = look_up(grids.IQ3_XXS, blocks[:, 2:66]).reshape(-1, 8, 4, 8)
    return (scale[..., None, None] * rows * sign_words(words)).reshape(-1, 256)


IQ3_XXS = Quant("IQ3_XXS", 18, 256, 98, dequantise_blocks)
