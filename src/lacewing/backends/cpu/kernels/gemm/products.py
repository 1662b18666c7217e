"""Products of weight bytes and activation bytes, for each instruction set: here alone do these differ.

A weight byte is unsigned, an activation byte signed; products of four bytes are summed in each 32-bit lane, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce

from llvmlite import ir

from lacewing.backends.cpu.kernels.simd.registers import I8V, I16V, I32V, ISA, LANES, call, constant

SMALL, WIDE = 63, 255  # weight bytes, at most: up to SMALL a sum of two products fits int16
I16_MAX = 32767


def emit_dots(
    b: ir.IRBuilder, start: ir.Value, registers: Sequence[ir.Value], xs: Sequence[ir.Value], chains: int, most: int
) -> ir.Value:
    """start + the products of all registers of unsigned weight bytes with signed bytes, lane by lane. `most`: of a weight byte.

    AVX2 sums pairs in int16, so that as many registers as fit are summed before one widening: eight of 4-bit weights.
    """
    together = I16_MAX // (2 * 128 * most) if ISA.dot == "maddubs" else 0
    if not together:
        return _emit_chains(b, start, registers, xs, chains, partial(emit_dot4, small=most <= SMALL))
    total, products = start, list(zip(registers, xs, strict=True))
    for first in range(0, len(products), together):
        words = reduce(b.add, [_emit_pairs(b, w, x) for w, x in products[first : first + together]])
        total = b.add(total, call(b, "llvm.x86.avx2.pmadd.wd", I32V, words, constant(I16V, 1)))
    return total


def emit_signed_dots(
    b: ir.IRBuilder, start: ir.Value, registers: Sequence[ir.Value], xs: Sequence[ir.Value], chains: int
) -> ir.Value:
    """As emit_dots with AVX2 for signed weight bytes, whose sign goes over to x; x is above -128."""
    return _emit_chains(b, start, registers, xs, chains, emit_signed_dot4)


def _emit_chains(
    b: ir.IRBuilder,
    start: ir.Value,
    registers: Sequence[ir.Value],
    xs: Sequence[ir.Value],
    chains: int,
    dot: Callable[..., ir.Value],
) -> ir.Value:
    """So many sums side by side."""
    sums = [start] + [constant(I32V, 0)] * (chains - 1)
    for i, (w, x) in enumerate(zip(registers, xs, strict=True)):
        sums[i % chains] = dot(b, sums[i % chains], w, x)
    return reduce(b.add, sums)


def _emit_pairs(b: ir.IRBuilder, w: ir.Value, x: ir.Value) -> ir.Value:
    """Sums of two products in int16, with AVX2."""
    return call(b, "llvm.x86.avx2.pmadd.ub.sw", I16V, b.bitcast(w, I8V), b.bitcast(x, I8V))


def emit_dot4(b: ir.IRBuilder, acc: ir.Value, w: ir.Value, x: ir.Value, small: bool) -> ir.Value:
    """acc + sum of 4 (w unsigned byte * x signed byte), lane by lane. `small`: w <= 63, so that int16 pairs cannot overflow."""
    if ISA.dot == "vnni512":
        return call(b, "llvm.x86.avx512.vpdpbusd.512", I32V, acc, b.bitcast(w, I8V), b.bitcast(x, I8V))
    if ISA.dot == "vnni256":
        return call(b, "llvm.x86.avx512.vpdpbusd.256", I32V, acc, b.bitcast(w, I8V), b.bitcast(x, I8V))
    if ISA.dot == "maddubs" and small:
        pairs = call(b, "llvm.x86.avx2.pmadd.ub.sw", I16V, b.bitcast(w, I8V), b.bitcast(x, I8V))
        return b.add(acc, call(b, "llvm.x86.avx2.pmadd.wd", I32V, pairs, constant(I16V, 1)))
    if ISA.dot == "sdot":
        return _dot4_signed(b, acc, w, x, small)
    return b.add(acc, _dot4_by_halves(b, w, x))


def emit_signed_dot4(b: ir.IRBuilder, acc: ir.Value, w: ir.Value, x: ir.Value) -> ir.Value:
    """As emit_dot4 for signed weight bytes: see `emit_signed_dots`."""
    w, x = b.bitcast(w, I8V), b.bitcast(x, I8V)
    signed = call(b, "llvm.x86.avx2.psign.b", I8V, x, w)
    size = call(b, f"llvm.abs.v{I8V.count}i8", I8V, w, ir.Constant(ir.IntType(1), 0))
    pairs = call(b, "llvm.x86.avx2.pmadd.ub.sw", I16V, size, signed)
    return b.add(acc, call(b, "llvm.x86.avx2.pmadd.wd", I32V, pairs, constant(I16V, 1)))


def _dot4_signed(b: ir.IRBuilder, acc: ir.Value, w: ir.Value, x: ir.Value, small: bool) -> ir.Value:
    """Where both factors are signed: a weight byte above 127 becomes w - 128, and 128 * sum(x) is added back."""
    name = f"llvm.aarch64.neon.sdot.v{LANES}i32.v{4 * LANES}i8"
    x = b.bitcast(x, I8V)
    if small:
        return call(b, name, I32V, acc, b.bitcast(w, I8V), x)
    flipped = b.bitcast(b.xor(w, constant(I32V, -0x7F7F7F80)), I8V)
    sums = call(b, name, I32V, constant(I32V, 0), constant(I8V, 1), x)
    return b.add(call(b, name, I32V, acc, flipped, x), b.shl(sums, constant(I32V, 7)))


def _dot4_by_halves(b: ir.IRBuilder, w: ir.Value, x: ir.Value) -> ir.Value:
    """Even and odd bytes as int16, multiplied and summed in pairs. Exact for all bytes."""
    eight = constant(I16V, 8)
    w16, x16 = b.bitcast(w, I16V), b.bitcast(x, I16V)
    even = _madd(b, b.and_(w16, constant(I16V, 255)), b.ashr(b.shl(x16, eight), eight))
    return b.add(even, _madd(b, b.lshr(w16, eight), b.ashr(x16, eight)))


def _madd(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """Products of int16 pairs, summed into the lane."""
    if ISA.dot == "maddubs":
        return call(b, "llvm.x86.avx2.pmadd.wd", I32V, x, y)
    sixteen = constant(I32V, 16)
    x32, y32 = b.bitcast(x, I32V), b.bitcast(y, I32V)
    low = b.mul(b.ashr(b.shl(x32, sixteen), sixteen), b.ashr(b.shl(y32, sixteen), sixteen))
    return b.add(low, b.mul(b.ashr(x32, sixteen), b.ashr(y32, sixteen)))


def emit_shifted(b: ir.IRBuilder, sums: ir.Value, shift: ir.Value) -> ir.Value:
    """Sums of up to 32 bytes, which fit int16, shifted left. A product instead, since LLVM would shift one lane, then spread it,
    which takes twice the instructions."""
    if ISA.dot != "maddubs":
        return b.shl(sums, shift)
    return call(b, "llvm.x86.avx2.pmadd.wd", I32V, b.bitcast(sums, I16V), b.bitcast(b.shl(constant(I32V, 1), shift), I16V))
