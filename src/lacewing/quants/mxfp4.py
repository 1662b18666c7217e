"""MXFP4: 32 four-bit floats (E2M1) in 17 bytes, one power of two (E8M0) as scale.

 0     1                      17
| e   | q0 q1 q2 ...     q15 |
        q_k: value k in the low nibble, value k + 16 in the high one

value = 2^(e - 128) * VALUES[q]; VALUES holds the doubled floats, which are integers. e = 255 is no NaN here.
"""

from __future__ import annotations

import numpy as np

from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, nibbles

VALUES = np.array((0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12), np.int8)  # (16,)
SCALES = np.ldexp(np.float32(1), np.arange(256) - 128).astype(np.float32)  # (256,), the first two are subnormal


def dequantise_blocks(blocks: Bytes) -> Floats:
    q = nibbles(blocks[:, 1:]).reshape(-1, 32)
    return SCALES[blocks[:, :1]] * VALUES[q].astype(np.float32)


MXFP4 = Quant("MXFP4", 39, 32, 17, dequantise_blocks)
