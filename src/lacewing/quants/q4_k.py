"""Q4_K: 256 values in 144 bytes, a 6-bit scale and a 6-bit minimum for every 32 values.

 0     2     4              16                              144
| d   | m   | s: 12 bytes  | q: 4 runs of 32 bytes         |       d, m: float16
                             run r, byte l: value 64 r + l in the low nibble, 64 r + 32 + l in the high one
s, k = 0..3:  byte k      scale k in bits 0..5,   the upper 2 bits of scale k + 4 in bits 6..7
              byte k + 4  minimum k,              the upper 2 bits of minimum k + 4
              byte k + 8  the lower 4 bits of scale k + 4 in bits 0..3, of minimum k + 4 in bits 4..7

value i = d * scale[i / 32] * q - m * minimum[i / 32]
"""

from __future__ import annotations

import numpy as np

from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, half, nibbles


def unpack_scales(field: Bytes) -> tuple[Bytes, Bytes]:
    """uint8 (N, 12) to scales and minima, each uint8 (N, 8), 0 to 63."""
    first, second, rest = field[:, :4], field[:, 4:8], field[:, 8:]
    scale = np.concatenate((first & 63, rest & 15 | first >> 6 << 4), axis=-1)
    minimum = np.concatenate((second & 63, rest >> 4 | second >> 6 << 4), axis=-1)
    return scale, minimum


def dequantise_blocks(blocks: Bytes) -> Floats:
    scales, minima = unpack_scales(blocks[:, 4:16])
    scale = half(blocks, 0) * scales.astype(np.float32)  # (N, 8)
    minimum = half(blocks, 2) * minima.astype(np.float32)  # (N, 8)
    q = nibbles(blocks[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32).astype(np.float32)
    return (scale[..., None] * q - minimum[..., None]).reshape(-1, 256)


Q4_K = Quant("Q4_K", 12, 256, 144, dequantise_blocks)
