"""Activations as signed bytes: each 32 columns share a float32 scale. Written beside the floats by whoever makes them.

A row of K columns (K a multiple of 32) is laid out as
    0          K bytes           q = round(x / d), ties to even, -127..127
    K          K/32 float32      d = max|x| / 127
    K + K/8    K/32 float32      d * sum(q) of each 32
    K + K/4    K/16 float32      d * sum(q) of each 16
    K + K/2    K/32 int32        -sum(q) of each 32
    K + 5K/8   K/16 int32        -sum(q) of each 16
"""

from numba import types

from lacewing.backends.cpu.arguments import QUANTISE, STATE
from lacewing.backends.cpu.kernels.experts.pairs import pairs_to_do
from lacewing.backends.cpu.kernels.simd.instructions import (
    load_f32,
    peek_i32,
    peek_i64,
    poke_f32,
    poke_i32,
    reduce_lanes,
    round_i32,
    splat_f32,
    splat_i32,
    store_i8,
    sum_i32,
)
from lacewing.backends.cpu.kernels.simd.registers import F32, I32V, LANES, call, constant, f32v, i32v, inline, instruction
from lacewing.backends.cpu.kernels.simd.threads import atomic_add


def emit_max(b, x, y):
    return call(b, f"llvm.umax.v{x.type.count}i32", x.type, x, y)


@instruction(i32v, i32v, f32v)
def larger(b, top, x):
    """The larger of `top` and |x|, as bits: they are in the order of the numbers, and NaN, which must not be lost, is above all."""
    return emit_max(b, top, b.and_(b.bitcast(x, I32V), constant(I32V, 0x7FFFFFFF)))


@instruction(types.float32, i32v)
def largest(b, v):
    """The largest lane of such bits, as the number."""
    return b.bitcast(reduce_lanes(b, v, lambda x, y: emit_max(b, x, y)), F32)


@inline
def quantise(x, row, width, first, count):
    """Columns `first` to `first + count` (multiples of 32) of a row of `width`; x: address of column `first`.

    Where a column is NaN or infinite, so is d, and the whole product becomes NaN or infinite.
    """
    for block in range(first // 32, (first + count) // 32):
        top = splat_i32(0)
        for i in range(32 // LANES):
            top = larger(top, load_f32(x + 4 * LANES * i))
        most = largest(top)
        d = most * (1.0 / 127.0)
        inverse = splat_f32(127.0 / most if most > 0 else 0.0)
        total = 0
        for half in range(2):
            sums = splat_i32(0)
            for i in range(half * 16 // LANES, (half + 1) * 16 // LANES):
                q = round_i32(load_f32(x + 4 * LANES * i) * inverse)
                store_i8(row + 32 * block + LANES * i, q)
                sums = sums + q
            part = sum_i32(sums)
            total += part
            poke_f32(row + width + width // 4 + 8 * block + 4 * half, d * part)
            poke_i32(row + width + 5 * (width // 8) + 8 * block + 4 * half, -part)
        poke_f32(row + width + 4 * block, d)
        poke_f32(row + width + width // 8 + 4 * block, d * total)
        poke_i32(row + width + width // 2 + 4 * block, -total)
        x += 128


@inline
def quantise_parts(x, row, stride, parts, width, first, count):
    """As `quantise` of a row of `parts` equal parts (of whole blocks), each of which is a row of its own, `stride` bytes apart."""
    part_width, column = width // parts, first
    while column < first + count:
        part = column // part_width
        until = min((part + 1) * part_width, first + count)
        quantise(x + 4 * (column - first), row + part * stride, part_width, column - part * part_width, until - column)
        column = until


def quantise_rows(args, state, thread, threads):
    """All rows, or those of which logits are wanted (gathered), in pieces of 256 columns. A row may consist of several parts, of
    which those of experts that the run is not about are left out."""
    x, x_stride, width = peek_i64(args + QUANTISE.x), peek_i64(args + QUANTISE.x_stride), peek_i64(args + QUANTISE.width)
    to, to_stride, outputs = peek_i64(args + QUANTISE.to), peek_i64(args + QUANTISE.to_stride), peek_i64(args + QUANTISE.outputs)
    rows, picks = peek_i64(state + (STATE.outputs if outputs else STATE.tokens)), peek_i64(state + STATE.picks)
    parts, pieces = peek_i64(args + QUANTISE.parts), (width + 255) // 256
    order, todo = pairs_to_do(peek_i64(args + QUANTISE.groups), peek_i64(args + QUANTISE.experts), rows * parts)
    while True:
        index = atomic_add(peek_i64(args + QUANTISE.counter), 1)
        if index >= todo * pieces:
            break
        row, first = index // pieces, index % pieces * 256
        if order:
            row = peek_i64(order + 8 * row)
        source = peek_i32(picks + 4 * row) if outputs else row // parts
        quantise(
            x + source * x_stride + 4 * (row % parts * width + first), to + row * to_stride, width, first, min(256, width - first)
        )
