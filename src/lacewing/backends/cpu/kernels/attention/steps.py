"""The inner loops of attention as register tiles: scores of queries with positions, and weighted sums of values.

`stored`: the type of the KV cache (stored.py), whose values become float32 in registers.
"""

from typing import Any

from llvmlite import ir
from numba import types

from lacewing.backends.cpu.kernels.attention.stored import BLOCK, Q8_BYTES, Q8_COLUMNS, Stored
from lacewing.backends.cpu.kernels.gemm.dot import emit_fma, emit_load
from lacewing.backends.cpu.kernels.simd.instructions import prefetch_far
from lacewing.backends.cpu.kernels.simd.registers import F32, F32V, GIVEN, LANES, VECTOR_BYTES, f32v, inline, instruction, splat


def make_score_step(queries: int, blocks: int, stored: Stored) -> Any:
    """`step(acc, key, scales, key_stride, q, q_stride)`: acc[i * blocks + j] += key[j] * q[i], both so many bytes apart."""

    @instruction(GIVEN, GIVEN, *[types.int64] * 5)
    def step(b, acc, key, scales, key_stride, q, q_stride):
        behind = [b.mul(key_stride, ir.Constant(key_stride.type, j)) for j in range(blocks)]
        positions = [stored.emit_keys(b, b.add(key, each), b.add(scales, each)) for each in behind]
        made = acc
        for i in range(queries):
            x = splat(b, emit_load(b, b.add(q, b.mul(q_stride, ir.Constant(q_stride.type, i))), 0, F32))
            for j, each in enumerate(positions):
                at = i * blocks + j
                made = b.insert_value(made, emit_fma(b, each, x, b.extract_value(acc, at)), at)
        return made

    return step


def make_value_step(queries: int, columns: int, stored: Stored) -> Any:
    """`step(acc, value, scales, p, stride)`: acc[i * columns + c] += p[i] * value[c]."""

    @instruction(GIVEN, GIVEN, *[types.int64] * 4)
    def step(b, acc, value, scales, p, stride):
        rows = [stored.emit_values(b, value, scales, c) for c in range(columns)]
        made = acc
        for i in range(queries):
            x = splat(b, emit_load(b, b.add(p, b.mul(stride, ir.Constant(stride.type, i))), 0, F32))
            for c, row in enumerate(rows):
                at = i * columns + c
                made = b.insert_value(made, emit_fma(b, row, x, b.extract_value(acc, at)), at)
        return made

    return step


def make_scores(queries: int, blocks: int, stored: Stored) -> Any:
    """`scores(q, stride, width, keys, out, ahead, nbytes)`: dot products of some queries with LANES positions times `blocks`.

    With each column `nbytes` more are asked for, from `ahead` on: asked for all at once they would hold up the products, as a core
    waits for few lines at a time. Each sum is one chain of additions, each of which waits for the last: some chains at once keep
    the CPU busy. In out the queries are BLOCK positions apart.
    """
    zeros, scatter = make_zeros(queries * blocks), make_scatter(queries, blocks, 4 * BLOCK)
    step, column_bytes, row_bytes = make_score_step(queries, blocks, stored), stored.column_bytes, stored.row_bytes
    lines = (blocks + 1) // 2

    @inline
    def scores(q, stride, width, keys, out, ahead, nbytes):
        acc = zeros()
        for c in range(width):
            if nbytes:
                for line in range(lines):
                    prefetch_far(ahead + 64 * line)
                ahead += nbytes
            acc = step(acc, keys + column_bytes * c, keys, column_bytes * width, q + 4 * c, stride)
        scatter(acc, out)

    @inline
    def scores_of_blocks(q, stride, width, keys, out, ahead, nbytes):
        acc, group = zeros(), row_bytes(width) * LANES
        for first in range(0, width, Q8_COLUMNS):
            columns = keys + 2 * LANES
            for c in range(Q8_COLUMNS):
                if nbytes:
                    for line in range(lines):
                        prefetch_far(ahead + 64 * line)
                    ahead += nbytes
                acc = step(acc, columns + LANES * c, keys, group, q + 4 * (first + c), stride)
            keys += Q8_BYTES * LANES
        scatter(acc, out)

    return scores_of_blocks if stored.quantised else scores


def make_zeros(count: int) -> Any:
    """`zeros()`: a tuple of `count` f32v of zeros."""

    @instruction(types.UniTuple(f32v, count))
    def zeros(b):
        return ir.Constant(ir.ArrayType(F32V, count), None)

    return zeros


def make_scatter(rows: int, columns: int, stride: int) -> Any:
    """`store(values, p)`: a tuple of rows of registers to memory, a row every `stride` bytes."""

    @instruction(types.void, GIVEN, types.int64)
    def store(b, values, p):
        for i in range(rows * columns):
            address = b.add(p, ir.Constant(p.type, i // columns * stride + i % columns * VECTOR_BYTES))
            b.store(b.extract_value(values, i), b.inttoptr(address, F32V.as_pointer()), align=4)

    return store


def make_values(queries: int, columns: int, stored: Stored) -> Any:
    """`values(acc, acc_stride, row, column, row_bytes, p, positions)`: acc += p @ v over some positions, `columns` registers wide.

    `row`: the first position's values; `column`: where in them to begin.
    """
    step, itemsize = make_value_step(queries, columns, stored), stored.column_bytes // LANES

    @instruction(types.UniTuple(f32v, queries * columns), types.int64, types.int64)
    def gather(b, p, stride):
        made = ir.Constant(ir.ArrayType(F32V, queries * columns), ir.Undefined)
        for i in range(queries):
            row = b.add(p, b.mul(stride, ir.Constant(stride.type, i)))
            for c in range(columns):
                made = b.insert_value(made, emit_load(b, row, VECTOR_BYTES * c, F32V), i * columns + c)
        return made

    @instruction(types.void, GIVEN, types.int64, types.int64)
    def scatter(b, acc, p, stride):
        for i in range(queries):
            row = b.add(p, b.mul(stride, ir.Constant(stride.type, i)))
            for c in range(columns):
                address = b.add(row, ir.Constant(row.type, VECTOR_BYTES * c))
                b.store(b.extract_value(acc, i * columns + c), b.inttoptr(address, F32V.as_pointer()), align=4)

    @inline
    def run(acc, acc_stride, row, column, row_bytes, p, positions):
        registers, v = gather(acc, acc_stride), row + itemsize * column
        for j in range(positions):
            registers = step(registers, v + j * row_bytes, v, p + 4 * j, 4 * BLOCK)
        scatter(registers, acc, acc_stride)

    @inline
    def run_blocks(acc, acc_stride, row, column, row_bytes, p, positions):
        registers, scales = gather(acc, acc_stride), row + column // Q8_COLUMNS * Q8_BYTES
        v = scales + 2 + column % Q8_COLUMNS
        for j in range(positions):
            registers = step(registers, v + j * row_bytes, scales + j * row_bytes, p + 4 * j, 4 * BLOCK)
        scatter(registers, acc, acc_stride)

    return run_blocks if stored.quantised else run
