"""Q8_0: 32 values in 34 bytes, one scale.

 0     2                      34
| d   | q0 q1 q2 ...     q31 |       d: float16, q: int8

value = d * q
"""

from __future__ import annotations

import numpy as np

from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats, half, numbers


def dequantise_blocks(blocks: Bytes) -> Floats:
    return half(blocks, 0) * numbers(blocks, 2, 32, "i1").astype(np.float32)


def quantise_q8_0(values: Floats) -> Bytes:
    """float32 (..., W), W whole blocks, to uint8 (..., W / 32 * 34); rounds halves away from zero, as llama.cpp does."""
    blocks = np.ascontiguousarray(values, np.float32).reshape(-1, 32)
    with np.errstate(all="ignore"):  # NaN and infinities are told later, from the logits
        scales = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
        codes = blocks * np.where(scales > 0, np.float32(1) / scales, np.float32(0))
        numbers = np.trunc(codes + np.copysign(np.float32(0.5), codes)).astype(np.int8)
    out = np.empty((len(blocks), 34), np.uint8)
    out[:, :2] = scales.astype(np.float16).view(np.uint8)
    out[:, 2:] = numbers.view(np.uint8)
    return out.reshape(*values.shape[:-1], values.shape[-1] // 32 * 34)


Q8_0 = Quant("Q8_0", 8, 32, 34, dequantise_blocks)
