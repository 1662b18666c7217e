"""Floats of eight and of four bits to float32, by way of float16, which has room for both; and the factors of their blocks.

Eight bits: E4M3 (quants/fp8.py), whose exponent is 8 less than float16's with the same bits. Four bits: E2M1 (quants/fp4.py),
14 less, pairs in a byte, the first one low. What is missing, 2^8 or 2^14, is part of the factors, so that no value needs a
product of its own for it. 0x7F and 0xFF become NaN.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import float32, types

from lacewing.backends.cpu.kernels.dot import emit_load
from lacewing.backends.cpu.kernels.simd import (
    F16,
    F32,
    I8,
    I16,
    I32,
    LANES,
    constant,
    f32v,
    inline,
    instruction,
    peek_f32,
    pointer,
    poke_f32,
    splat_f32,
    store_f32,
)

I16S = ir.VectorType(I16, LANES)


def _widened(b: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    """float16 bits, as many as there are lanes."""
    return b.fpext(b.bitcast(bits, ir.VectorType(F16, bits.type.count)), ir.VectorType(F32, bits.type.count))


def _f8(b: ir.IRBuilder, raw: ir.Value) -> ir.Value:
    """Bytes to float32 / 2^8: the sign stays in front, exponent and fraction move to float16's; 15 and 7 there become NaN."""
    kind = ir.VectorType(I16, raw.type.count)
    bits = b.and_(b.shl(b.sext(raw, kind), constant(kind, 7)), constant(kind, -0x4080))
    broken = b.icmp_signed("==", b.and_(bits, constant(kind, 0x3F80)), constant(kind, 0x3F80))
    return _widened(b, b.or_(bits, b.sext(broken, kind)))


def emit_f8(b: ir.IRBuilder, p: ir.Value) -> ir.Value:
    return _f8(b, emit_load(b, p, 0, ir.VectorType(I8, LANES)))


def emit_f4(b: ir.IRBuilder, p: ir.Value) -> ir.Value:
    """LANES / 2 bytes, every one in two lanes: the shift brings the nibble's exponent and fraction to the same bits."""
    raw = emit_load(b, p, 0, ir.VectorType(I8, LANES // 2))
    twice = b.shuffle_vector(raw, raw, ir.Constant(ir.VectorType(I32, LANES), [lane // 2 for lane in range(LANES)]))
    moved = b.shl(b.zext(twice, I16S), ir.Constant(I16S, [9, 5] * (LANES // 2)))
    sign = b.and_(b.shl(moved, constant(I16S, 3)), constant(I16S, -0x8000))
    return _widened(b, b.or_(b.and_(moved, constant(I16S, 0x0E00)), sign))


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


@instruction(types.float32, types.int64)
def peek_power(b, p):
    """2^14 times the power of two in a byte; beyond float32 infinity."""
    e = b.add(b.zext(b.load(pointer(b, p, I8), align=1), I32), ir.Constant(I32, 14))
    most = ir.Constant(I32, 255)
    return b.bitcast(b.shl(b.select(b.icmp_unsigned("<", e, most), e, most), ir.Constant(I32, 23)), F32)


@inline
def factor_f8(scales, block):
    """float32 factors, one after the other."""
    return peek_f32(scales + 4 * block) * float32(256.0)


@inline
def factor_f4(scales, block):
    return peek_power(scales + block)


@inline
def column_f8(w, column):
    """Where the value of a column is."""
    return w + column


@inline
def column_f4(w, column):
    return w + column // 2


def make_widen(load: Any, peek: Any, column_of: Any, factor_of: Any) -> Any:
    """`widen(w, scales, width, columns, to)`: a row to float32, `columns` of which share a factor.

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
    def widen(w, scales, width, columns, to):
        for block in range((width + columns - 1) // columns):
            factor = factor_of(scales, block)
            first, last = block * columns, min((block + 1) * columns, width)
            whole = last - (last - first) % LANES
            for c in range(first, whole, LANES):
                store_f32(to + 4 * c, load(column_of(w, c)) * splat_f32(factor))
            rest(w, factor, whole, last, to)

    return widen


widen_f8 = make_widen(load_f8, peek_f8, column_f8, factor_f8)
widen_f4 = make_widen(load_f4, None, column_f4, factor_f4)
