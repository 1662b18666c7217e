"""Floats of eight and of four bits to float32, by way of float16, which has room for both; and the factors of their blocks.

Eight bits: E4M3 (quants/fp8.py), whose exponent is 8 less than float16's with the same bits. Four bits: E2M1 (quants/fp4.py),
14 less, pairs in a byte, the first one low. What is missing, 2^8 or 2^14, is part of the factors, so that no value needs a
product of its own for it. 0x7F and 0xFF become NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import float32, types

from lacewing.backends.cpu.kernels.gemm.dot import emit_load
from lacewing.backends.cpu.kernels.quants.lookup import make_table
from lacewing.backends.cpu.kernels.simd.instructions import peek_f32, peek_u8, poke_f32, splat_f32, store_f32
from lacewing.backends.cpu.kernels.simd.registers import (
    F16,
    F32,
    F32V,
    I8,
    I16,
    I32,
    I64,
    LANES,
    constant,
    f32v,
    inline,
    instruction,
    pointer,
)

with np.errstate(over="ignore"):  # beyond float32: infinity
    powers = make_table(np.exp2(np.arange(256) - 127.0 + 14).astype(np.float32))


def _widened(b: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    """float16 bits, as many as there are lanes."""
    return b.fpext(b.bitcast(bits, ir.VectorType(F16, bits.type.count)), ir.VectorType(F32, bits.type.count))


def _f8(b: ir.IRBuilder, raw: ir.Value) -> ir.Value:
    """Bytes to float32 / 2^8: the sign stays in front, exponent and fraction move to float16's; 15 and 7 there become NaN."""
    kind = ir.VectorType(I16, raw.type.count)
    bits = b.and_(b.shl(b.sext(raw, kind), constant(kind, 7)), constant(kind, -0x4080))
    broken = b.icmp_signed("==", b.and_(bits, constant(kind, 0x3F80)), constant(kind, 0x3F80))
    return _widened(b, b.or_(bits, b.sext(broken, kind)))


def emit_f8(b: ir.IRBuilder, p: ir.Value, count: int = LANES) -> ir.Value:
    return _f8(b, emit_load(b, p, 0, ir.VectorType(I8, count)))


def emit_f4(b: ir.IRBuilder, p: ir.Value, count: int = LANES) -> ir.Value:
    """count / 2 bytes, every one in two lanes: the shift brings the nibble's exponent and fraction to the same bits."""
    raw, kind = emit_load(b, p, 0, ir.VectorType(I8, count // 2)), ir.VectorType(I16, count)
    twice = b.shuffle_vector(raw, raw, ir.Constant(ir.VectorType(I32, count), [lane // 2 for lane in range(count)]))
    moved = b.shl(b.zext(twice, kind), ir.Constant(kind, [9, 5] * (count // 2)))
    sign = b.and_(b.shl(moved, constant(kind, 3)), constant(kind, -0x8000))
    return _widened(b, b.or_(b.and_(moved, constant(kind, 0x0E00)), sign))


def emit_pair(b: ir.IRBuilder, emit: Any, p: ir.Value) -> list[ir.Value]:
    """Two registers at once, whose integers still fit one."""
    both = emit(b, p, 2 * LANES)
    halves = (ir.Constant(ir.VectorType(I32, LANES), list(range(start, start + LANES))) for start in (0, LANES))
    return [b.shuffle_vector(both, both, half) for half in halves]


@instruction(types.void, types.int64, f32v, types.int64)
def widen_pair_f8(b, p, factor, to):
    """2 * LANES values, times the factor, as float32."""
    for i, values in enumerate(emit_pair(b, emit_f8, p)):
        b.store(b.fmul(values, factor), pointer(b, b.add(to, ir.Constant(I64, 4 * LANES * i)), F32V), align=4)


@instruction(types.void, types.int64, f32v, types.int64)
def widen_pair_f4(b, p, factor, to):
    """2 * LANES values, times the factor, as float32."""
    for i, values in enumerate(emit_pair(b, emit_f4, p)):
        b.store(b.fmul(values, factor), pointer(b, b.add(to, ir.Constant(I64, 4 * LANES * i)), F32V), align=4)


@instruction(f32v, types.int64)
def load_f8(b, p):
    """LANES values of eight bits, divided by 2^8."""
    return emit_f8(b, p)


@instruction(f32v, types.int64)
def load_f4(b, p):
    """LANES values of four bits, divided by 2^14."""
    return emit_f4(b, p)


@instruction(types.float32, types.int64)
def peek_f8(b, p):
    """One value of eight bits, divided by 2^8."""
    return b.extract_element(_f8(b, emit_load(b, p, 0, ir.VectorType(I8, 1))), ir.Constant(I32, 0))


@inline
def factor_f8(scales, block):
    """float32 factors, one after the other."""
    return peek_f32(scales + 4 * block) * float32(256.0)


@inline
def factor_f4(scales, block):
    """A power of two in a byte."""
    return peek_f32(powers() + 4 * peek_u8(scales + block))


@inline
def column_f8(w, column):
    """Where the value of a column is."""
    return w + column


@inline
def column_f4(w, column):
    return w + column // 2


def make_widen(load: Any, widen_pair: Any, peek: Any, column_of: Any, factor_of: Any) -> Any:
    """`widen(w, scales, start, end, columns, to)`: columns of a row to float32, `columns` of which share a factor.

    `peek` None: rows are whole registers, which blocks of 32 values are.
    """
    if peek is None:

        @inline
        def rest(w, factor, first, last, to):
            pass

    else:

        @inline
        def rest(w, factor, first, last, to):
            for c in range(first, last):
                poke_f32(to + 4 * c, peek(w + c) * factor)

    @inline
    def widen(w, scales, start, end, columns, to):
        for block in range(start // columns, (end + columns - 1) // columns):
            factor = factor_of(scales, block)
            c, last, at = max(block * columns, start), min((block + 1) * columns, end), to - 4 * start
            while c + 2 * LANES <= last:
                widen_pair(column_of(w, c), splat_f32(factor), at + 4 * c)
                c += 2 * LANES
            if c + LANES <= last:
                store_f32(at + 4 * c, load(column_of(w, c)) * splat_f32(factor))
                c += LANES
            rest(w, factor, c, last, at)

    return widen


widen_f8 = make_widen(load_f8, widen_pair_f8, peek_f8, column_f8, factor_f8)
widen_f4 = make_widen(load_f4, widen_pair_f4, None, column_f4, factor_f4)
