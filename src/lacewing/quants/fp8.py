"""FP8: one float of eight bits a value, without a scale of its own; checkpoints keep a factor for each block of rows and columns.

E4M3, as in safetensors ("fn": no infinities): sign, 4 bits of exponent (bias 7), 3 of fraction; 0x7F and 0xFF are NaN.
"""

from __future__ import annotations

import numpy as np

from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats


def _values() -> Floats:
    """float32 (256,)"""
    byte = np.arange(256)
    exponent, fraction = byte >> 3 & 15, byte & 7
    subnormal, normal = np.ldexp(fraction.astype(np.float32), -9), np.ldexp((8 + fraction).astype(np.float32), exponent - 10)
    table: Floats = np.where(exponent == 0, subnormal, normal).astype(np.float32) * np.where(byte < 128, 1, -1).astype(np.float32)
    table[[0x7F, 0xFF]] = np.nan
    return table


VALUES = _values()


def dequantise_blocks(blocks: Bytes) -> Floats:
    return VALUES[blocks]


F8_E4M3 = Quant("F8_E4M3", None, 1, 1, dequantise_blocks)
