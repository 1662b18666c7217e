"""The halves of MXFP4 as Hugging Face checkpoints keep them: four-bit floats here, powers of two there.

F4_E2M1: two values a byte, the first one in the low nibble; 1 sign, 2 bits of exponent, 1 of fraction.
F8_E8M0: one power of two a byte, 2^(e - 127), the factor of 32 values of a row. e = 255 is no NaN here, as in `mxfp4.py`.
"""

from __future__ import annotations

import numpy as np

from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats
from lacewing.quants.mxfp4 import SCALES, VALUES

HALVES = VALUES.astype(np.float32) / 2  # (16,)


def _values(blocks: Bytes) -> Floats:
    values: Floats = HALVES[np.concatenate([blocks & 15, blocks >> 4], axis=-1)]
    return values


def _factors(blocks: Bytes) -> Floats:
    factors: Floats = SCALES[blocks] * np.float32(2)
    return factors


F4_E2M1 = Quant("F4_E2M1", None, 2, 1, _values)
F8_E8M0 = Quant("F8_E8M0", None, 1, 1, _factors)
