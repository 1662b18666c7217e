"""IQ2_XXS: 256 values in 66 bytes, groups of 32: four rows of a code book, signs, a 4-bit scale.

 0     2                                66
| d   | 8 groups of two uint32: i, w   |      d: float16
        i: byte l is the row of octet l (l = 0..3)
        w: bits 7 l .. 7 l + 6 are the sign index of octet l, bits 28..31 the scale

value = d * (0.5 + scale) / 4 * sign * row
"""

from __future__ import annotations

import numpy as np

from lacewing.quants import grids
from lacewing.quants.base import Quant
from lacewing.quants.bits import Array, Bytes, Floats, half, look_up, numbers, signs

_SIGN_SHIFTS = np.array((0, 7, 14, 21), np.uint32)


def sign_words(words: Array) -> Floats:
    """uint32 (N, 8), four 7-bit sign indices in each, to float32 (N, 8, 4, 8) of 1 and -1."""
    return signs(grids.SIGNS[words[..., None] >> _SIGN_SHIFTS & 127])


def dequantise_blocks(blocks: Bytes) -> Floats:
    words = numbers(blocks, 2, 16, "<u4")[:, 1::2]  # (N, 8)
    rows = blocks[:, 2:].reshape(-1, 8, 8)[:, :, :4]  # (N, 8, 4)
    scale = half(blocks, 0) * (np.float32(0.5) + (words >> 28).astype(np.float32)) * np.float32(0.25)
    return (scale[..., None, None] * look_up(grids.IQ2_XXS, rows) * sign_words(words)).reshape(-1, 256)


IQ2_XXS = Quant("IQ2_XXS", 16, 256, 66, dequantise_blocks)
