"""Products with AMX: tiles of a weight times 16 tokens at once. The bits are those of kernels/gemm/dot.py.

A tile of bytes (kernels/gemm/dot.py) is laid out as AMX wants its second factor. The bytes, scales and sums of 16 tokens are packed
for all tiles of the job, and each sub-block gives int32 (16 tokens, 16 rows) in one instruction. These go through memory to the
vector registers, where scales are applied in the order of the other kernels: one sub-block while AMX is at the next.

Weights less 2**shift are signed bytes here, so that the sums need no correction; both are exact.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from lacewing.backends.cpu.arguments import JOB, TILE_COLUMNS
from lacewing.backends.cpu.kernels.gemm.dot import (
    MINS,
    SCALES,
    TILE_BYTES,
    WORK,
    emit_fma,
    emit_load,
    make_few,
    make_registers,
    room_of,
)
from lacewing.backends.cpu.kernels.gemm.products import SMALL
from lacewing.backends.cpu.kernels.simd.instructions import (
    load_f32,
    load_i32,
    peek_i32,
    peek_i64,
    poke_i32,
    prefetch,
    splat_i32,
    store_i32,
)
from lacewing.backends.cpu.kernels.simd.registers import (
    F32,
    F32V,
    GIVEN,
    I8V,
    I32,
    I32V,
    VECTOR_BYTES,
    f32v,
    i32v,
    inline,
    instruction,
    pointer,
    splat,
)
from lacewing.backends.cpu.kernels.simd.tiles import CONFIG_BYTES, ROW_BYTES, ROWS, configure, make_multiply, release

PAYS = 8  # tokens for which a register that is not full is no slower than kernels/gemm/dot.py; measured, as is the next
NEAR_BYTES = 1 << 20  # of activations that stay in the second cache; if there are more, they are asked for in time
# In the working space of a job: bytes, scales and sums of 16 tokens, then two matrices of sums.
BYTES_AT = CONFIG_BYTES
SCALES_AT = BYTES_AT + ROWS * TILE_COLUMNS
SCALES_STRIDE, SUMS_STRIDE = TILE_COLUMNS // 8, TILE_COLUMNS // 4
SUMS_AT = SCALES_AT + ROWS * SCALES_STRIDE
MATRICES_AT = SUMS_AT + ROWS * SUMS_STRIDE
MATRIX_BYTES = ROWS * ROW_BYTES
EIGHT = ir.VectorType(I32, 8)


@instruction(i32v, i32v, i32v)
def subtract_bytes(b, x, y):
    return b.bitcast(b.sub(b.bitcast(x, I8V), b.bitcast(y, I8V)), I32V)


@instruction(types.void, types.int64, types.int64)
def copy_32(b, source, to):
    """32 bytes."""
    b.store(b.load(pointer(b, source, EIGHT), align=4), pointer(b, to, EIGHT), align=4)


def make_scale(with_min: bool) -> Any:
    """`scale(acc, sums, scale, low, xd, xs) -> acc`: the sums of a sub-block, scaled, of 16 tokens.

    xd, xs: address of the first token's scale and sum, those of the others a packed row on.
    """

    @instruction(GIVEN, GIVEN, types.int64, f32v, f32v, types.int64, types.int64)
    def scale(b, acc, sums, scale, low, xd, xs):
        made = acc
        for token in range(ROWS):
            factor = b.fmul(scale, splat(b, emit_load(b, xd, SCALES_STRIDE * token, F32)))
            exact = b.sitofp(emit_load(b, sums, ROW_BYTES * token, I32V), F32V)
            value = emit_fma(b, factor, exact, b.extract_value(acc, token))
            if with_min:
                value = emit_fma(b, low, splat(b, emit_load(b, xs, SUMS_STRIDE * token, F32)), value)
            made = b.insert_value(made, value, token)
        return made

    return scale


@inline
def copy(source, to, nbytes):
    """A multiple of 4 bytes."""
    at = 0
    while at + 32 <= nbytes:
        copy_32(source + at, to + at)
        at += 32
    while at < nbytes:
        poke_i32(to + at, peek_i32(source + at))
        at += 4


@inline
def zero(to, nbytes):
    for at in range(0, nbytes, 4):
        poke_i32(to + at, 0)


def make_pack(with_min: bool, sum_bytes: int) -> Any:
    """`pack(job, work, offsets, tokens, blocks, bytes_too)`: the activations of up to 16 tokens side by side, zeros behind them."""

    @inline
    def pack(job, work, offsets, tokens, blocks, bytes_too):
        xq, xd, xs = peek_i64(job + JOB.xq), peek_i64(job + JOB.xd), peek_i64(job + JOB.xs)
        for t in range(tokens):
            offset = peek_i64(offsets + 8 * t)
            copy(xd + offset, work + SCALES_AT + SCALES_STRIDE * t, 4 * blocks)
            if with_min:
                copy(xs + offset, work + SUMS_AT + SUMS_STRIDE * t, sum_bytes * blocks)
            if bytes_too:
                copy(xq + offset, work + BYTES_AT + TILE_COLUMNS * t, 32 * blocks)
        for t in range(tokens, ROWS):
            zero(work + SCALES_AT + SCALES_STRIDE * t, SCALES_STRIDE)
            zero(work + SUMS_AT + SUMS_STRIDE * t, SUMS_STRIDE)
            zero(work + BYTES_AT + TILE_COLUMNS * t, TILE_COLUMNS)

    return pack


@inline
def ask(job, offsets, behind, step):
    """Ask for the activations of 16 tokens, `behind` columns on: in the first 16 steps for the bytes of one each, then the rest."""
    if step < 2 * ROWS:
        offset = peek_i64(offsets + 8 * (step % ROWS))
        if step < ROWS:
            for line in range(0, TILE_COLUMNS, 64):
                prefetch(peek_i64(job + JOB.xq) + offset + behind + line)
        else:
            prefetch(peek_i64(job + JOB.xd) + offset + behind // 8)
            prefetch(peek_i64(job + JOB.xs) + offset + behind // 8)


@inline
def make_signed(tile, blocks, shift):
    """The bytes of a tile less 2**shift."""
    least = splat_i32((1 << shift) * 0x01010101)
    for at in range(tile, tile + 8 * VECTOR_BYTES * blocks, VECTOR_BYTES):
        store_i32(at, subtract_bytes(load_i32(at), least))


def make_group(with_min: bool, sub_block: int) -> Any:
    """`group(job, x, stride, tile, count, subs, p, room, work, ahead, behind)`: 16 tokens times some tiles of `subs` sub-blocks.

    x, stride: their bytes; p, room: accumulators of the first tile, and bytes from one tile's to the next; ahead: where the offsets
    of the tokens are whose activations are asked for meanwhile, `behind` columns on, 0: of none.
    """
    multiply, scale, halves = make_multiply(not with_min), make_scale(with_min), 32 // sub_block
    load, store = make_registers(ROWS)
    block_bytes = sub_block // 4 * VECTOR_BYTES

    @inline
    def group(job, x, stride, tile, count, subs, p, room, work, ahead, behind):
        matrix, other = work + MATRICES_AT, work + MATRICES_AT + MATRIX_BYTES
        multiply(x, stride, tile, matrix)
        for index in range(count):
            acc = load(p)
            for s in range(subs):  # the next matrix of sums is made before this one is used
                if s + 1 < subs:
                    multiply(x + sub_block * (s + 1), stride, tile + block_bytes * (s + 1), other)
                elif index + 1 < count:
                    multiply(x, stride, tile + TILE_BYTES, other)
                if ahead:
                    ask(job, ahead, behind, subs * index + s)
                scales, low = load_f32(tile + SCALES + VECTOR_BYTES * s), load_f32(tile + MINS + VECTOR_BYTES * s)
                acc = scale(acc, matrix, scales, low, work + SCALES_AT + 4 * (s // halves), work + SUMS_AT + 4 * s)
                matrix, other = other, matrix
            store(p, acc)
            tile, p = tile + TILE_BYTES, p + room

    return group


def make_amx_kernel(with_min: bool, sub_block: int) -> Any:
    """`kernel(job, count)`: as `dot.make_dot_kernel`."""
    sum_bytes, halves = 4 * (32 // sub_block), 32 // sub_block
    few, pack, group = make_few(with_min, sub_block, SMALL), make_pack(with_min, sum_bytes), make_group(with_min, sub_block)

    def kernel(job, count, _2, _3):
        tile, blocks, tokens = peek_i64(job + JOB.tile), peek_i64(job + JOB.blocks), peek_i64(job + JOB.tokens)
        p, work, shift = peek_i64(job + JOB.acc), job + WORK, peek_i64(job + JOB.shift)
        room, rest = VECTOR_BYTES * room_of(tokens), tokens % ROWS
        whole = tokens - rest if rest < PAYS else tokens
        if whole < tokens:
            for index in range(count):
                few(job, tile + TILE_BYTES * index, whole, tokens, p + room * index)
        if whole == 0:
            return
        if not with_min:
            for index in range(count):
                make_signed(tile + TILE_BYTES * index, blocks, shift)
        configure(work, sub_block)
        first, offsets, stride = 0, peek_i64(job + JOB.offsets), peek_i64(job + JOB.stride)
        far = stride * tokens > NEAR_BYTES
        while first < whole:
            here, apart = offsets + 8 * first, stride and first + ROWS <= tokens
            pack(job, work, here, min(ROWS, tokens - first), blocks, not apart)
            x = peek_i64(job + JOB.xq) + peek_i64(here) if apart else work + BYTES_AT
            ahead, behind = (here + 8 * ROWS, 0) if first + 2 * ROWS <= tokens else (offsets, TILE_COLUMNS)
            group(
                job, x, stride if apart else TILE_COLUMNS, tile, count, halves * blocks, p + VECTOR_BYTES * first, room, work,
                ahead if far else 0, behind,
            )  # fmt: skip
            first += ROWS
        release()

    return kernel


min32 = make_amx_kernel(with_min=True, sub_block=32)
min16 = make_amx_kernel(with_min=True, sub_block=16)
offset32 = make_amx_kernel(with_min=False, sub_block=32)
offset16 = make_amx_kernel(with_min=False, sub_block=16)
