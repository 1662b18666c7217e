"""IQ1_M: 256 values in 56 bytes, octets of -1, 0, 1 with a shift each, a 3-bit scale for every 16 values.

 0               32              48                56
| q: 32 bytes   | h: 16 bytes   | s: 4 uint16     |
  q_k, and bits 8..10 in nibble k of h: row of octet k; bit 3 of the nibble: sign of its shift
                                  s_j: bits 3 m .. 3 m + 2 are the scale of the values 64 j + 16 m ..
                                       bits 12..15 are the nibble j of the block's scale d, a float16

value = d * (2 scale + 1) * (row + shift), shift 0.125 or -0.125
"""

from __future__ import annotations

import numpy as np

from lacewing.quants import grids
from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, look_up, nibbles, numbers
from lacewing.quants.iq1_s import SHIFT

_SCALE_SHIFTS = np.array((0, 3, 6, 9), np.uint16)


def dequantise_blocks(blocks: Bytes) -> Floats:
    s = numbers(blocks, 48, 4, "<u2")
    d = s[:, 0] >> 12 | s[:, 1] >> 12 << 4 | s[:, 2] >> 12 << 8 | s[:, 3] >> 12 << 12
    scales = (s[..., None] >> _SCALE_SHIFTS & 7).reshape(-1, 16)
    scale = d.view(np.float16).astype(np.float32)[:, None] * (2 * scales + 1).astype(np.float32)  # (N, 16)
    high = nibbles(blocks[:, 32:48, None]).reshape(-1, 32)
    rows = blocks[:, :32] | (high & 7).astype(np.uint16) << 8
    shift = np.where(high & 8, -SHIFT, SHIFT)  # (N, 32)
    octets = (look_up(grids.IQ1_S, rows) + shift[..., None]).reshape(-1, 16, 16)
    return (scale[..., None] * octets).reshape(-1, 256)


IQ1_M = Quant("IQ1_M", 29, 256, 56, dequantise_blocks)
