"""One token: products of LANES rows with one activation row, in registers all the way from the file's bytes to the sums.

A tile pays for itself when several tokens use it. For one, bytes stay as they lie in the row, lanes along the columns, and only
the sums are transposed, which are fewer. They are exact, and the float operations are those of kernels/gemm/dot.py, so the results
are the same bits.

    quad   16 bytes of a row, 4 lanes; a register holds QUADS of them
    pair   two rows: the first 8 bytes of each quad of both in one register (a half), the last 8 in another; the products of
           both halves are summed, after which 2 lanes of each quad belong to each row
    fold   two pairs, neighbouring lanes added: one lane a row, for each quad of columns
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types

from lacewing.backends.cpu.arguments import JOB
from lacewing.backends.cpu.kernels.gemm.dot import emit_fma, emit_load
from lacewing.backends.cpu.kernels.gemm.products import emit_dot4
from lacewing.backends.cpu.kernels.simd.instructions import load_f32, peek_i64, prefetch, store_f32
from lacewing.backends.cpu.kernels.simd.registers import (
    F16,
    F32,
    F32V,
    GIVEN,
    I8V,
    I16,
    I16V,
    I32V,
    I64,
    ISA,
    LANES,
    VECTOR_BYTES,
    call,
    constant,
    i32v,
    instruction,
    pointer,
    splat,
)
from lacewing.backends.cpu.kernels.simd.transpose import gather_quads, pick, within_quads

QUADS = LANES // 4
WORDS_MADD = {16: "llvm.x86.avx512.pmaddw.d.512", 8: "llvm.x86.avx2.pmadd.wd"}
WORDS_PACK = {16: "llvm.x86.avx512.packssdw.512", 8: "llvm.x86.avx2.packssdw"}
Values = list[ir.Value]
# For each sum of four_rows the byte registers that go into it, for each register the columns at which its quads begin.
Columns = Sequence[Sequence[Sequence[int]]]


def at(b: ir.IRBuilder, p: ir.Value, offset: int) -> ir.Value:
    return b.add(p, ir.Constant(I64, offset))


def emit_f16(b: ir.IRBuilder, words: ir.Value) -> ir.Value:
    """The float16 in the low half of every lane, widened."""
    return b.fpext(b.bitcast(b.trunc(words, ir.VectorType(I16, LANES)), ir.VectorType(F16, LANES)), F32V)


def emit_nibble(b: ir.IRBuilder, q: ir.Value, high: int) -> ir.Value:
    return b.and_(b.lshr(q, constant(I32V, 4)) if high else q, constant(I32V, 0x0F0F0F0F))


def make_activations(columns: Columns, shift: int | None = None) -> Any:
    """`activations(xq)`: what `four_rows` multiplies with. Weight bytes are the true value + 2**shift; None: the true value."""
    count = sum(1 + 2 * len(registers) for registers in columns)

    @instruction(types.UniTuple(i32v, count), types.int64)
    def activations(b, xq):
        made, found = ir.Constant(ir.ArrayType(I32V, count), ir.Undefined), []
        for registers in columns:
            halves = [half for starts in registers for half in _emit_halves(b, xq, starts)]
            start = constant(I32V, 0)
            for half in halves if shift is not None else []:
                start = emit_dot4(b, start, constant(I32V, (0x01010101 << (shift or 0) ^ 1 << 31) - (1 << 31)), half, True)
            found += [b.sub(constant(I32V, 0), start), *halves]
        for index, value in enumerate(found):
            made = b.insert_value(made, value, index)
        return made

    return activations


def _emit_halves(b: ir.IRBuilder, xq: ir.Value, starts: Sequence[int]) -> Values:
    """Activations at the columns of a register's quads, as the halves of a pair meet them. Two neighbouring registers hold them."""
    base = min(starts)
    low = high = emit_load(b, xq, base, I32V)
    if max(starts) + 16 > base + VECTOR_BYTES:
        high = emit_load(b, xq, base + VECTOR_BYTES, I32V)
    lanes = [(start - base) // 4 for start in starts]
    return [pick(b, low, high, [lane + i for lane in lanes for i in (first, first + 1) * 2]) for first in (0, 2)]


def make_four_rows(
    load: Callable[..., Values], unpack: Callable[..., list[Values]], columns: Columns, pack: Sequence[bool], signed: bool = False
) -> Any:
    """`four_rows(source, stride, x, to)`: the folds of the first four rows, one register a sum, QUADS registers apart.

    load(b, address of a row) gives registers, unpack(b, halves of them, which half) the byte registers of each sum. pack, for
    each sum: the sums of a pair fit int16. signed: the bytes are, and may be large; else they are 0 to 63 or, where `ISA.dot`
    sums pairs without saturation, 0 to 255.
    """

    @instruction(types.void, types.int64, types.int64, GIVEN, types.int64)
    def four_rows(b, source, stride, x, to):
        given = iter([b.extract_value(x, i) for i in range(x.type.count)])
        activations = [[next(given) for _ in range(1 + 2 * len(registers))] for registers in columns]
        pairs = []
        for row in (0, 2):
            raws = [load(b, b.add(source, b.mul(stride, ir.Constant(I64, row + i)))) for i in range(2)]
            halves = [
                unpack(b, [within_quads(b, x, y, picks) for x, y in zip(*raws, strict=True)], half)
                for half, picks in enumerate(((0, 1, 4, 5), (2, 3, 6, 7)))
            ]
            pairs.append([_emit_pair(b, *each, signed) for each in zip(*halves, activations, strict=True)])
        for index, (first, second, fits) in enumerate(zip(*pairs, pack, strict=True)):
            b.store(_emit_fold(b, first, second, fits), pointer(b, at(b, to, index * QUADS * VECTOR_BYTES), I32V), align=4)

    return four_rows


def _emit_pair(b: ir.IRBuilder, low: Values, high: Values, x: Values, signed: bool) -> ir.Value:
    """x[0] and the products of the low and high halves of all registers, 4 to a lane."""
    total, products = x[0], list(zip([half for both in zip(low, high, strict=True) for half in both], x[1:], strict=True))
    if ISA.dot != "maddubs":
        for w, v in products:
            total = emit_dot4(b, total, w, v, True)
        return total
    ones = constant(I16V, 1)
    for first, second in zip(products[::2], products[1::2], strict=True):
        words = [_emit_products(b, *each, signed) for each in (first, second)]
        for each in words if signed else [b.add(*words)]:
            total = b.add(total, call(b, WORDS_MADD[LANES], I32V, each, ones))
    return total


def _emit_products(b: ir.IRBuilder, w: ir.Value, v: ir.Value, signed: bool) -> ir.Value:
    """Sums of two products with AVX2. The sign of a signed w goes over to v."""
    w, v = b.bitcast(w, I8V), b.bitcast(v, I8V)
    if signed:
        v = call(b, "llvm.x86.avx2.psign.b", I8V, v, w)
        w = call(b, f"llvm.abs.v{I8V.count}i8", I8V, w, ir.Constant(ir.IntType(1), 0))
    return call(b, "llvm.x86.avx2.pmadd.ub.sw", I16V, w, v)


def _emit_fold(b: ir.IRBuilder, x: ir.Value, y: ir.Value, fits: bool) -> ir.Value:
    if fits and ISA.dot != "generic":
        return call(b, WORDS_MADD[LANES], I32V, call(b, WORDS_PACK[LANES], I16V, x, y), constant(I16V, 1))
    return b.add(within_quads(b, x, y, (0, 2, 4, 6)), within_quads(b, x, y, (1, 3, 5, 7)))


def _alternate(b: ir.IRBuilder, x: ir.Value, y: ir.Value, odd: int) -> ir.Value:
    """Every other quad of both."""
    return pick(b, x, y, [s + 4 * q + i for s in (0, LANES) for q in range(odd, QUADS, 2) for i in range(4)])


def emit_sub_blocks(b: ir.IRBuilder, sums: ir.Value, columns: Columns, sub_block: int) -> Values:
    """What `four_rows` stored for all rows: sums of `sub_block` (16 or 32) columns each, one row a lane, in their order."""
    made = {}
    for index, (starts, *_) in enumerate(columns):
        found = _emit_quads(b, sums, index) if sub_block == 16 else _emit_two_quads(b, sums, index)
        made |= dict(zip(starts[:: sub_block // 16], found, strict=True))
    return [made[start] for start in sorted(made)]


def _emit_quads(b: ir.IRBuilder, sums: ir.Value, index: int) -> Values:
    """Of the folds of a sum: one register for each quad of columns."""
    return gather_quads(b, [emit_load(b, sums, (index * QUADS + g) * VECTOR_BYTES, I32V) for g in range(QUADS)])


def _emit_two_quads(b: ir.IRBuilder, sums: ir.Value, index: int) -> Values:
    """As _emit_quads, for each two neighbouring quads of columns."""
    parts = [emit_load(b, sums, (index * QUADS + g) * VECTOR_BYTES, I32V) for g in range(QUADS)]
    made = [b.add(_alternate(b, x, y, 0), _alternate(b, x, y, 1)) for x, y in zip(parts[::2], parts[1::2], strict=True)]
    return made if len(made) == 1 else [_alternate(b, *made, 0), _alternate(b, *made, 1)]


def emit_scaled(b: ir.IRBuilder, acc: ir.Value, total: ir.Value, scale: ir.Value, xd: ir.Value) -> ir.Value:
    """acc + scale * d * total, for one sub-block whose activations have the scale at xd."""
    factor = b.fmul(scale, splat(b, emit_load(b, xd, 0, F32)))
    return emit_fma(b, factor, b.sitofp(total, F32V), acc)


def make_kernel(block_bytes: int, columns: int, activations: Any, four_rows: Any, finish: Any) -> Any:
    """`kernel(source, stride, job, blocks)`: `blocks` times `columns` columns of rows `stride` bytes apart, `block_bytes` in the
    file, added to JOB.acc.

    JOB.tile is working space. What lies JOB.ahead further on in memory is asked for; from JOB.end on a thread goes on JOB.jump
    further. The order of memory is not that of use, and the CPU may have dropped some of it until then: what comes soon is asked
    for again, and after this tile comes the one at JOB.next, if that is not 0.
    """
    lines, row_lines = (4 * block_bytes + 63) // 64, (block_bytes + 63) // 64
    soon = 768 // columns * 16 // LANES  # steps from asking to use

    def kernel(source, stride, job, blocks):
        xq, xd, xs = peek_i64(job + JOB.xq), peek_i64(job + JOB.xd), peek_i64(job + JOB.xs)
        ahead, following = source + peek_i64(job + JOB.ahead), peek_i64(job + JOB.next)
        end, jump = peek_i64(job + JOB.end), peek_i64(job + JOB.jump)
        sums, acc = peek_i64(job + JOB.tile), load_f32(peek_i64(job + JOB.acc))
        for step in range(blocks):
            x = activations(xq)
            behind = step + soon - blocks
            coming = source + block_bytes * soon if behind < 0 else following + block_bytes * behind
            then = ahead if ahead < end else ahead + jump
            for four in range(QUADS):
                for line in range(lines):
                    prefetch(then + 4 * block_bytes * four + 64 * line)
                if following:
                    for row in range(4 * four, 4 * four + 4):
                        for line in range(row_lines):
                            prefetch(coming + row * stride + 64 * line)
                four_rows(source + 4 * four * stride, stride, x, sums + VECTOR_BYTES * four)
            acc = finish(acc, sums, source, stride, xd, xs)
            source, ahead = source + block_bytes, ahead + block_bytes * LANES
            xq, xd, xs = xq + columns, xd + columns // 8, xs + columns // 8
        store_f32(peek_i64(job + JOB.acc), acc)

    return kernel
