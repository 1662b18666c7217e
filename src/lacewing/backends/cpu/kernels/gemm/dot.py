"""Sums of byte products, the heart of the quantised linear, for each instruction set.

A weight byte is unsigned, an activation byte signed; their products are summed exactly (kernels/gemm/products.py), so that every
instruction set and every tiling gives the same integers.

A tile: LANES rows of a weight, up to TILE_COLUMNS columns, unpacked to bytes for the dot kernels. It stays in the first cache.

    0        registers w[column / 4]: lane r holds 4 bytes of row r
    SCALES   f32v for each sub-block of 32 or 16 columns: the rows' scales
    MINS     f32v for each sub-block: what a unit of the activation's sum adds (quants with a minimum only)
    SCRATCH  working space of the unpacker

An unpacker is a kernel `unpack_X(source, row_stride, tile, blocks)`: it turns `blocks` file blocks of each of LANES rows,
the first at `source`, the next row `row_stride` bytes on, into a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types

from lacewing.backends.cpu.arguments import JOB, TILE_COLUMNS
from lacewing.backends.cpu.kernels.gemm.products import SMALL, WIDE, emit_dots, emit_shifted
from lacewing.backends.cpu.kernels.simd.instructions import load_f32, peek_i64
from lacewing.backends.cpu.kernels.simd.registers import (
    F32,
    F32V,
    GIVEN,
    I32,
    I32V,
    I64,
    ISA,
    LANES,
    VECTOR_BYTES,
    call,
    constant,
    f32v,
    inline,
    instruction,
    pointer,
    splat,
)

SCALES = TILE_COLUMNS // 4 * VECTOR_BYTES
MINS = SCALES + 16 * VECTOR_BYTES
SCRATCH = MINS + 16 * VECTOR_BYTES
TILE_BYTES = SCRATCH + 16 * VECTOR_BYTES
# A job: its tiles, its words, working space of AMX, and the accumulators.
TOGETHER = 16 if ISA.tiles else 1  # tokens that accumulators are made for
MAX_TILES = 4 if ISA.tiles else 1  # of a job: then activations are read fewer times
WORK = 128  # bytes from the words to the working space
JOB_BYTES = WORK + (16384 if ISA.tiles else 0)
JOB_AT = MAX_TILES * TILE_BYTES
ACC_AT = JOB_AT + JOB_BYTES

MAX_TOKENS = 8 if LANES == 16 else 4  # accumulators of one register tile


def make_dot_step(with_min: bool, sub_block: int, most: int) -> Any:
    """One sub-block of a tile times some tokens: `step(acc, w, scale, low, shift, xq, xd, xs, offsets) -> acc`.

    acc: tuple of f32v, one a token; w: address of sub_block/4 registers; scale, low: f32v; the others as in `emit_sub_block`.
    `with_min`, low * (float sum at xs) is added; else the true weight is w - 2**shift.
    """

    @instruction(GIVEN, GIVEN, types.int64, f32v, f32v, *[types.int64] * 5)
    def step(b, acc, w, scale, low, shift, xq, xd, xs, offsets):
        places = splat(b, b.trunc(shift, I32))
        registers = [emit_load(b, w, 4 * LANES * i, I32V) for i in range(sub_block // 4)]
        more = (low, None) if with_min else (None, places)
        return emit_sub_block(b, acc, registers, scale, *more, (xq, xd, xs), offsets, partial(emit_dots, most=most))

    return step


def emit_sub_block(
    b: ir.IRBuilder,
    acc: ir.Value,
    registers: list[ir.Value],
    scale: ir.Value,
    low: ir.Value | None,
    shift: ir.Value | None,
    x: Sequence[ir.Value],
    offsets: ir.Value,
    dots: Callable[..., ir.Value],
) -> ir.Value:
    """acc + registers of weight bytes times the activations of some tokens, as many as acc has.

    x: where bytes, scale and sum of this sub-block would be for a token at offset 0; offsets: address of the tokens' offsets.
    low: mins, f32v, to be multiplied with the float sum; shift, i32v: the true weight is w - 2**shift, and the sum is minus that of
    the bytes as int32. dots: as `emit_dots`, which knows the largest weight byte.
    """
    made, tokens = acc, acc.type.count
    chains = 2 if tokens <= 2 else 1  # few tokens alone do not fill the multipliers' latency
    for token in range(tokens):
        behind = emit_load(b, offsets, 8 * token, I64)
        xq, xd, xs = (b.add(p, behind) for p in x)
        start = constant(I32V, 0) if shift is None else emit_shifted(b, splat(b, emit_load(b, xs, 0, I32)), shift)
        total = dots(b, start, registers, [splat(b, emit_load(b, xq, 4 * i, I32)) for i in range(len(registers))], chains)
        factor = b.fmul(scale, splat(b, emit_load(b, xd, 0, F32)))
        value = emit_fma(b, factor, b.sitofp(total, F32V), b.extract_value(acc, token))
        if low is not None:
            value = emit_fma(b, low, splat(b, emit_load(b, xs, 0, F32)), value)
        made = b.insert_value(made, value, token)
    return made


def emit_load(b: ir.IRBuilder, base: ir.Value, offset: int, kind: ir.Type) -> ir.Value:
    return b.load(pointer(b, b.add(base, ir.Constant(base.type, offset)), kind), align=1)


def emit_fma(b: ir.IRBuilder, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
    return call(b, f"llvm.fma.v{LANES}f32", F32V, x, y, z)


def make_registers(count: int) -> tuple[Any, Any]:
    """`load(p)` and `store(p, values)` of `count` consecutive f32v as one tuple."""

    @instruction(types.UniTuple(f32v, count), types.int64)
    def load(b, p):
        made = ir.Constant(ir.ArrayType(F32V, count), ir.Undefined)
        for i in range(count):
            made = b.insert_value(made, emit_load(b, p, 4 * LANES * i, F32V), i)
        return made

    @instruction(types.void, types.int64, GIVEN)
    def store(b, p, registers):
        for i in range(count):
            address = b.add(p, ir.Constant(I64, 4 * LANES * i))
            b.store(b.extract_value(registers, i), pointer(b, address, F32V), align=4)

    return load, store


def make_few(with_min: bool, sub_block: int, most: int) -> Any:
    """`few(job, tile, first, tokens, p)`: a tile times some tokens of the job, added to the accumulators at p."""
    step = make_dot_step(with_min, sub_block, most)
    load_many, store_many = make_registers(MAX_TOKENS)
    load_two, store_two = make_registers(2)
    load_one, store_one = make_registers(1)
    halves, block_registers, sum_bytes = 32 // sub_block, sub_block // 4 * VECTOR_BYTES, 4 * (32 // sub_block)

    @inline
    def run(acc, tile, blocks, shift, xq, xd, xs, offsets):
        for block in range(blocks):
            for half in range(halves):
                s = halves * block + half
                scale, low = load_f32(tile + SCALES + VECTOR_BYTES * s), load_f32(tile + MINS + VECTOR_BYTES * s)
                at = xs + sum_bytes * block + 4 * half
                acc = step(acc, tile + block_registers * s, scale, low, shift, xq + sub_block * s, xd + 4 * block, at, offsets)
        return acc

    @inline
    def few(job, tile, first, tokens, p):
        blocks, shift, offsets = peek_i64(job + JOB.blocks), peek_i64(job + JOB.shift), peek_i64(job + JOB.offsets) + 8 * first
        xq, xd, xs = peek_i64(job + JOB.xq), peek_i64(job + JOB.xd), peek_i64(job + JOB.xs)
        tokens, p = tokens - first, p + VECTOR_BYTES * first
        while tokens >= MAX_TOKENS:
            store_many(p, run(load_many(p), tile, blocks, shift, xq, xd, xs, offsets))
            offsets, p, tokens = offsets + 8 * MAX_TOKENS, p + MAX_TOKENS * VECTOR_BYTES, tokens - MAX_TOKENS
        while tokens >= 2:
            store_two(p, run(load_two(p), tile, blocks, shift, xq, xd, xs, offsets))
            offsets, p, tokens = offsets + 16, p + 2 * VECTOR_BYTES, tokens - 2
        if tokens:
            store_one(p, run(load_one(p), tile, blocks, shift, xq, xd, xs, offsets))

    return few


def make_dot_kernel(with_min: bool, sub_block: int, most: int) -> Any:
    """`kernel(job, count)`: some tiles times all tokens, added to their accumulators. The job's words are those of `JOB`; tiles are
    TILE_BYTES apart, their accumulators `room_of(tokens)` registers."""
    few = make_few(with_min, sub_block, most)

    def kernel(job, count, _2, _3):
        tile, tokens, p = peek_i64(job + JOB.tile), peek_i64(job + JOB.tokens), peek_i64(job + JOB.acc)
        for index in range(count):
            few(job, tile + TILE_BYTES * index, 0, tokens, p + VECTOR_BYTES * room_of(tokens) * index)

    return kernel


@inline
def room_of(tokens):
    """Accumulators of a tile."""
    return (tokens + TOGETHER - 1) // TOGETHER * TOGETHER


# By the largest bytes of the quants that come here: 5 bits with blocks of 32, 6 bits with blocks of 16; Q2_K has 2 bits.
min32 = make_dot_kernel(with_min=True, sub_block=32, most=31)
min16 = make_dot_kernel(with_min=True, sub_block=16, most=31)
offset32 = make_dot_kernel(with_min=False, sub_block=32, most=31)
offset16 = make_dot_kernel(with_min=False, sub_block=16, most=SMALL)
wide32 = make_dot_kernel(with_min=False, sub_block=32, most=WIDE)
