"""One token times Q4_K, Q5_K and Q6_K (kernels/gemv/gemv.py). Layouts: quants/q4_k.py and so on.

Scales and mins are those of kernels/quants/unpack_k.py, by the same operations.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from lacewing.backends.cpu.kernels.gemm.dot import emit_fma, emit_load
from lacewing.backends.cpu.kernels.gemv.gemv import (
    Values,
    at,
    emit_f16,
    emit_nibble,
    emit_scaled,
    emit_sub_blocks,
    make_activations,
    make_four_rows,
    make_kernel,
)
from lacewing.backends.cpu.kernels.simd.registers import (
    F32,
    F32V,
    I32,
    I32V,
    ISA,
    LANES,
    VECTOR_BYTES,
    constant,
    f32v,
    instruction,
    splat,
)
from lacewing.backends.cpu.kernels.simd.transpose import emit_transpose

REGISTERS = range(0, 128, VECTOR_BYTES)  # where the nibbles of a row's block begin that fill one
RUNS = VECTOR_BYTES // 32  # of 32 bytes in a register
SHIFTED = ISA.dot == "maddubs"  # else nibbles may stay in the upper half of their bytes: sums of pairs hold 16 * 15 * 127 * 2
HIGH = constant(I32V, -0x0F0F0F10)
# A run of 32 bytes has 32 columns in its low nibbles, the next 32 in the high ones: two sums a register, low and high.
COLUMNS = [
    [[2 * run + 32 * high + quad for run in range(first, first + VECTOR_BYTES, 32) for quad in (0, 16)]]
    for first in REGISTERS
    for high in (0, 1)
]


def emit_byte(b: ir.IRBuilder, words: ir.Value, k: int) -> ir.Value:
    """Byte k of every lane."""
    return b.and_(b.lshr(words, constant(I32V, 8 * k)), constant(I32V, 255))


def emit_high(b: ir.IRBuilder, v: ir.Value, places: list[int], mask: int) -> ir.Value:
    """Each 32 bytes of a register shifted left by as many places, right where negative, then masked."""
    count = ir.Constant(I32V, [abs(n) for n in places for _ in range(8)])
    return b.and_(b.lshr(v, count) if min(places) < 0 else b.shl(v, count), constant(I32V, mask))


def emit_repeated(b: ir.IRBuilder, p: ir.Value, offset: int) -> ir.Value:
    """32 bytes, repeated to fill a register."""
    half = emit_load(b, p, offset, ir.VectorType(I32, 8))
    return b.shuffle_vector(half, half, ir.Constant(ir.VectorType(I32, LANES), [*range(8)] * (LANES // 8)))


# ---- Q4_K and Q5_K --------------------------------------------------------------------------------------------------


def emit_scales(b: ir.IRBuilder, head: ir.Value, s0: ir.Value, s1: ir.Value, s2: ir.Value) -> list[Values]:
    """Scales and mins of Q4_K and Q5_K, 8 f32v each, from the first four words of a block."""
    d, m = emit_f16(b, head), b.fsub(constant(F32V, 0.0), emit_f16(b, b.lshr(head, constant(I32V, 16))))
    two, low6, top2 = constant(I32V, 2), constant(I32V, 0x3F3F3F3F), constant(I32V, 0x30303030)
    scales = b.and_(s0, low6), b.or_(emit_nibble(b, s2, 0), b.and_(b.lshr(s0, two), top2))
    mins = b.and_(s1, low6), b.or_(emit_nibble(b, s2, 1), b.and_(b.lshr(s1, two), top2))
    return [
        [b.fmul(unit, b.sitofp(emit_byte(b, words, k), F32V)) for words in both for k in range(4)]
        for unit, both in ((d, scales), (m, mins))
    ]


def make_finish(high_places: int) -> Any:
    """`finish(acc, sums, source, stride, xd, xs)`. The sums of high nibbles are `high_places` too far left."""

    @instruction(f32v, f32v, *[types.int64] * 5)
    def finish(b, acc, sums, source, stride, xd, xs):
        """acc + the eight sub-blocks of a block."""
        totals = emit_sub_blocks(b, sums, COLUMNS, 32)
        totals[1::2] = [b.ashr(total, constant(I32V, high_places)) for total in totals[1::2]]
        for s, (total, scale, low) in enumerate(zip(totals, *emit_scales(b, *emit_transpose(b, source, stride, 4)), strict=True)):
            acc = emit_scaled(b, acc, total, scale, at(b, xd, 4 * s))
            acc = emit_fma(b, low, splat(b, emit_load(b, xs, 4 * s, F32)), acc)
        return acc

    return finish


def emit_q4_k_row(b: ir.IRBuilder, row: ir.Value) -> Values:
    return [emit_load(b, row, 16 + first, I32V) for first in REGISTERS]


def emit_q4_k_bytes(b: ir.IRBuilder, raws: Values, half: int) -> list[Values]:
    return [[each] for q in raws for each in (emit_nibble(b, q, 0), emit_nibble(b, q, 1) if SHIFTED else b.and_(q, HIGH))]


def emit_q5_k_row(b: ir.IRBuilder, row: ir.Value) -> Values:
    return [emit_repeated(b, row, 16), *(emit_load(b, row, 48 + first, I32V) for first in REGISTERS)]


def emit_q5_k_bytes(b: ir.IRBuilder, raws: Values, half: int) -> list[Values]:
    """Bit s of the first register becomes bit 4 of sub-block s."""
    top, *nibbles = raws
    return [
        [b.or_(emit_nibble(b, q, high), emit_high(b, top, [4 - (first // 16 + 2 * i + high) for i in range(RUNS)], 0x10101010))]
        for first, q in zip(REGISTERS, nibbles, strict=True)
        for high in (0, 1)
    ]


x_q4_k = make_activations(COLUMNS)
four_q4_k = make_four_rows(emit_q4_k_row, emit_q4_k_bytes, COLUMNS, (True, SHIFTED) * len(REGISTERS))
four_q5_k = make_four_rows(emit_q5_k_row, emit_q5_k_bytes, COLUMNS, (True, True) * len(REGISTERS))
gemv_q4_k = make_kernel(144, 256, x_q4_k, four_q4_k, make_finish(0 if SHIFTED else 4))
gemv_q5_k = make_kernel(176, 256, x_q4_k, four_q5_k, make_finish(0))


# ---- Q6_K -----------------------------------------------------------------------------------------------------------

# Two halves: 64 bytes have 64 columns in their low nibbles, the next 64 in the high ones.
Q6_COLUMNS = [
    [[first // 64 * 128 + first % 64 + 64 * high + quad for quad in range(0, VECTOR_BYTES, 16)]]
    for first in REGISTERS
    for high in (0, 1)
]


def emit_q6_k_row(b: ir.IRBuilder, row: ir.Value) -> Values:
    return [emit_repeated(b, row, 128), emit_repeated(b, row, 160), *(emit_load(b, row, first, I32V) for first in REGISTERS)]


def emit_q6_k_bytes(b: ir.IRBuilder, raws: Values, half: int) -> list[Values]:
    """Bits 2 k and 2 k + 1 of a half's register become bits 4 and 5 of its k-th 32 columns."""
    (*tops,) = raws[:2]
    return [
        [
            b.or_(
                emit_nibble(b, q, high),
                emit_high(b, tops[first // 64], [4 - 2 * (first % 64 // 32 + i + 2 * high) for i in range(RUNS)], 0x30303030),
            )
        ]
        for first, q in zip(REGISTERS, raws[2:], strict=True)
        for high in (0, 1)
    ]


@instruction(f32v, f32v, *[types.int64] * 5)
def finish_q6_k(b, acc, sums, source, stride, xd, xs):
    """acc + the 16 sub-blocks of a block."""
    totals = emit_sub_blocks(b, sums, Q6_COLUMNS, 16)
    d = emit_f16(b, b.lshr(emit_transpose(b, at(b, source, 194), stride, 4)[3], constant(I32V, 16)))
    places = constant(I32V, 24)
    for w, words in enumerate(emit_transpose(b, at(b, source, 192), stride, 4)):
        for k in range(4):
            scale = b.fmul(d, b.sitofp(b.ashr(b.shl(words, constant(I32V, 24 - 8 * k)), places), F32V))
            acc = emit_scaled(b, acc, totals[4 * w + k], scale, at(b, xd, 8 * w + 4 * (k // 2)))
    return acc


x_q6_k = make_activations(Q6_COLUMNS, 5)
four_q6_k = make_four_rows(emit_q6_k_row, emit_q6_k_bytes, Q6_COLUMNS, [True] * len(Q6_COLUMNS))
gemv_q6_k = make_kernel(210, 256, x_q6_k, four_q6_k, finish_q6_k)
