"""Eight values of a dequantised row at a time, for the quants that have no unpacker: from code books and from packed bits."""

from __future__ import annotations

from llvmlite import ir
from numba import types

from lacewing.backends.cpu.kernels.simd.registers import F32, I8, I32, instruction, pointer, splat

F32X8, I32X8 = ir.VectorType(F32, 8), ir.VectorType(I32, 8)


def emit_same(b: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """A scalar in all eight lanes; an address or int64 is cut to int32."""
    return splat(b, b.trunc(value, I32) if isinstance(value.type, ir.IntType) else value, 8)


def emit_bytes(b: ir.IRBuilder, address: ir.Value, count: int = 8) -> ir.Value:
    return b.load(pointer(b, address, ir.VectorType(I8, count)), align=1)


def emit_store(b: ir.IRBuilder, target: ir.Value, integers: ir.Value, scale: ir.Value) -> None:
    """Integers times the scale."""
    b.store(b.fmul(b.sitofp(integers, F32X8), emit_same(b, scale)), pointer(b, target, F32X8), align=4)


def lanes(*values: int) -> ir.Constant:
    return ir.Constant(I32X8, list(values if len(values) == 8 else values * 8))


def emit_signed(b: ir.IRBuilder, entries: ir.Value, signs: ir.Value, scale: ir.Value, target: ir.Value) -> None:
    """Bytes times the scale, negative where the bit is set; the sign comes last, so that a zero has one, too."""
    product = b.fmul(b.sitofp(b.sext(entries, I32X8), F32X8), emit_same(b, scale))
    negative = b.icmp_signed("!=", b.and_(emit_same(b, signs), lanes(*(1 << k for k in range(8)))), lanes(0))
    b.store(b.select(negative, b.fneg(product), product), pointer(b, target, F32X8), align=4)


@instruction(types.void, types.int64, types.int64, types.float32, types.int64)
def signed_8(b, row, signs, scale, target):
    """Eight bytes of a code book, with sign bits, times the scale."""
    emit_signed(b, emit_bytes(b, row), signs, scale, target)


@instruction(types.void, types.int64, types.int64, types.int64, types.float32, types.int64)
def signed_quads(b, first, second, signs, scale, target):
    """Twice four bytes of a code book, with sign bits, times the scale."""
    order = ir.Constant(ir.VectorType(I32, 8), list(range(8)))
    emit_signed(b, b.shuffle_vector(emit_bytes(b, first, 4), emit_bytes(b, second, 4), order), signs, scale, target)


@instruction(types.void, types.int64, types.float32, types.float32, types.int64)
def shifted_8(b, row, shift, scale, target):
    """(byte + shift) * scale of eight bytes of a code book."""
    entries = b.fadd(b.sitofp(b.sext(emit_bytes(b, row), I32X8), F32X8), emit_same(b, shift))
    b.store(b.fmul(entries, emit_same(b, scale)), pointer(b, target, F32X8), align=4)


@instruction(types.void, types.int64, types.int64, types.float32, types.int64)
def ternary_8(b, source, power, scale, target):
    """The digit that `power`, a power of 3, brings to the front of each of eight bytes, minus 1."""
    front = b.and_(b.mul(b.zext(emit_bytes(b, source), I32X8), emit_same(b, power)), lanes(255))
    emit_store(b, target, b.sub(b.lshr(b.mul(front, lanes(3)), lanes(8)), lanes(1)), scale)


@instruction(types.void, types.int64, types.int64, types.float32, types.int64)
def pair_8(b, source, shift, scale, target):
    """The pair of bits at `shift` of each of eight bytes, minus 1."""
    pairs = b.and_(b.lshr(b.zext(emit_bytes(b, source), I32X8), emit_same(b, shift)), lanes(3))
    emit_store(b, target, b.sub(pairs, lanes(1)), scale)


@instruction(types.void, types.int64, types.float32, types.int64)
def pairs_in_order(b, word, scale, target):
    """The eight pairs of bits of a 16-bit word, lowest first, minus 1."""
    pairs = b.and_(b.lshr(emit_same(b, word), lanes(*range(0, 16, 2))), lanes(3))
    emit_store(b, target, b.sub(pairs, lanes(1)), scale)


@instruction(types.void, types.int64, types.float32, types.int64)
def bits_in_order(b, byte, scale, target):
    """The scale where the bit is set, else its negative, lowest bit first."""
    value = emit_same(b, scale)
    there = b.icmp_signed("!=", b.and_(emit_same(b, byte), lanes(*(1 << k for k in range(8)))), lanes(0))
    b.store(b.select(there, value, b.fneg(value)), pointer(b, target, F32X8), align=4)


@instruction(types.void, types.int64, types.int64, types.float32, types.int64)
def small_float_8(b, source, shift, scale, target):
    """The E2M1 numbers, doubled, in the nibbles at `shift` of eight bytes: 0, 1, 2, 3, 4, 6, 8, 12 and their negatives."""
    q = b.lshr(b.zext(emit_bytes(b, source), I32X8), emit_same(b, shift))
    exponent, fraction = b.and_(b.lshr(q, lanes(1)), lanes(3)), b.and_(q, lanes(1))
    subnormal = b.icmp_signed("==", exponent, lanes(0))
    normal = b.shl(b.or_(fraction, lanes(2)), b.select(subnormal, lanes(0), b.sub(exponent, lanes(1))))
    size = b.select(subnormal, fraction, normal)
    negative = b.icmp_signed("!=", b.and_(q, lanes(8)), lanes(0))
    emit_store(b, target, b.select(negative, b.sub(lanes(0), size), size), scale)
