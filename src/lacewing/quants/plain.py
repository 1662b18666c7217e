"""Unpacked formats: one value a block, little-endian.

F64 8 bytes | F32 4 | F16 2 | BF16 2: the upper half of an F32 | I8 1 | I16 2 | I32 4 | I64 8
BOOL and U8 1 | U16 2 | U32 4 | U64 8: in safetensors only

Integers hold tables (token ids, permutations), not weights; they become float32 all the same.
"""

from __future__ import annotations

import numpy as np

from lacewing.quants.base import Quant
from lacewing.quants.bits import Bytes, Floats


def _f32(blocks: Bytes) -> Floats:
    return np.require(blocks.view("<f4"), np.float32, "A")  # a view where the bytes are aligned


def _bf16(blocks: Bytes) -> Floats:
    return (blocks.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _numbers(name: str, ggml_id: int | None, dtype: str) -> Quant:
    kind = np.dtype(dtype)

    def dequantise_blocks(blocks: Bytes) -> Floats:
        return blocks.view(kind).astype(np.float32)

    return Quant(name, ggml_id, 1, kind.itemsize, dequantise_blocks)


F32 = Quant("F32", 0, 1, 4, _f32)
BF16 = Quant("BF16", 30, 1, 2, _bf16)
F16 = _numbers("F16", 1, "<f2")
F64 = _numbers("F64", 28, "<f8")
I8 = _numbers("I8", 24, "i1")
I16 = _numbers("I16", 25, "<i2")
I32 = _numbers("I32", 26, "<i4")
I64 = _numbers("I64", 27, "<i8")
BOOL = _numbers("BOOL", None, "u1")
U8 = _numbers("U8", None, "u1")
U16 = _numbers("U16", None, "<u2")
U32 = _numbers("U32", None, "<u4")
U64 = _numbers("U64", None, "<u8")
