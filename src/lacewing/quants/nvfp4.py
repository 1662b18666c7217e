"""NVFP4: 64 four-bit floats (E2M1) in 36 bytes, an unsigned E4M3 scale for every 16 values.

 0               4                            36
| s0 s1 s2 s3   | q: 4 runs of 8 bytes       |
                  run r, byte l: value 16 r + l in the low nibble, 16 r + 8 + l in the high one

value i = SCALES[s[i / 16]] * VALUES[q]; VALUES are doubled, SCALES halved. Bit 7 of a scale says nothing.
A tensor may have a further factor of its own beside it (`.scale`), which is not part of the block.
"""

from __future__ import annotations

import numpy as np

from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, nibbles
from lacewing.quants.mxfp4 import VALUES


def _scales() -> Floats:
    """float32 (256,): half of each E4M3 number; 0x7F, which would be NaN, counts as 0."""
    byte = np.arange(256)
    exponent, fraction = byte >> 3 & 15, byte & 7
    subnormal = np.ldexp(fraction.astype(np.float32), -10)
    normal = np.ldexp((8 + fraction).astype(np.float32), exponent - 11)
    table: Floats = np.where(exponent == 0, subnormal, normal).astype(np.float32)
    table[0x7F] = 0
    return table


SCALES = _scales()


def dequantise_blocks(blocks: Bytes) -> Floats:
    q = nibbles(blocks[:, 4:].reshape(-1, 4, 8)).reshape(-1, 4, 16)
    return (SCALES[blocks[:, :4], None] * VALUES[q].astype(np.float32)).reshape(-1, 64)


NVFP4 = Quant("NVFP4", 40, 64, 36, dequantise_blocks)
