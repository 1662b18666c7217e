"""The inner loops of attention as register tiles: scores of queries with positions, and weighted sums of values.

`stored`: the type of the KV cache (stored.py), whose values become float32 in registers.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import signature
from numba.extending import intrinsic

from lacewing.backends.cpu.kernels.attention.stored import BLOCK, Q8_BYTES, Q8_COLUMNS, Stored
from lacewing.backends.cpu.kernels.gemm.dot import emit_fma, emit_load
from lacewing.backends.cpu.kernels.simd.registers import F32, F32V, LANES, VECTOR_BYTES, f32v, inline, splat


def make_score_step(queries: int, blocks: int, stored: Stored) -> Any:
    """`step(acc, key, scales, key_stride, q, q_stride)`: acc[i * blocks + j] += key[j] * q[i], both so many bytes apart."""

    @intrinsic
    def step(typingctx, acc, key, scales, key_stride, q, q_stride):
        def codegen(context: Any, b: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
            acc, key, scales, key_stride, q, q_stride = values
            behind = [b.mul(key_stride, ir.Constant(key_stride.type, j)) for j in range(blocks)]
            positions = [stored.emit_keys(b, b.add(key, each), b.add(scales, each)) for each in behind]
            made = acc
            for i in range(queries):
                x = splat(b, emit_load(b, b.add(q, b.mul(q_stride, ir.Constant(q_stride.type, i))), 0, F32))
                for j, each in enumerate(positions):
                    at = i * blocks + j
                    made = b.insert_value(made, emit_fma(b, each, x, b.extract_value(acc, at)), at)
            return made

        return signature(acc, acc, *[types.int64] * 5), codegen

    return step


def make_value_step(queries: int, columns: int, stored: Stored) -> Any:
    """`step(acc, value, scales, p, stride)`: acc[i * columns + c] += p[i] * value[c]."""

    @intrinsic
    def step(typingctx, acc, value, scales, p, stride):
        def codegen(context: Any, b: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
            acc, value, scales, p, stride = values
            rows = [stored.emit_values(b, value, scales, c) for c in range(columns)]
            made = acc
            for i in range(queries):
                x = splat(b, emit_load(b, b.add(p, b.mul(stride, ir.Constant(stride.type, i))), 0, F32))
                for c, row in enumerate(rows):
                    at = i * columns + c
                    made = b.insert_value(made, emit_fma(b, row, x, b.extract_value(acc, at)), at)
            return made

        return signature(acc, acc, *[types.int64] * 4), codegen

    return step


def make_scores(queries: int, blocks: int, stored: Stored) -> Any:
    """`scores(q, stride, width, keys, out)`: dot products of some queries with LANES positions times `blocks`.

    Each sum is one chain of additions, each of which waits for the last: some chains at once keep the CPU busy. In out the queries
    are BLOCK positions apart.
    """
    zeros, scatter = make_zeros(queries * blocks), make_scatter(queries, blocks, 4 * BLOCK)
    step, column_bytes, row_bytes = make_score_step(queries, blocks, stored), stored.column_bytes, stored.row_bytes

    @inline
    def scores(q, stride, width, keys, out):
        acc = zeros()
        for c in range(width):
            acc = step(acc, keys + column_bytes * c, keys, column_bytes * width, q + 4 * c, stride)
        scatter(acc, out)

    @inline
    def scores_of_blocks(q, stride, width, keys, out):
        acc, group = zeros(), row_bytes(width) * LANES
        for first in range(0, width, Q8_COLUMNS):
            columns = keys + 2 * LANES
            for c in range(Q8_COLUMNS):
                acc = step(acc, columns + LANES * c, keys, group, q + 4 * (first + c), stride)
            keys += Q8_BYTES * LANES
        scatter(acc, out)

    return scores_of_blocks if stored.quantised else scores


def make_zeros(count: int) -> Any:
    """`zeros()`: a tuple of `count` f32v of zeros."""

    @intrinsic
    def zeros(typingctx):
        kind = types.UniTuple(f32v, count)
        return signature(kind), lambda context, b, sig, values: ir.Constant(ir.ArrayType(F32V, count), None)

    return zeros


def make_scatter(rows: int, columns: int, stride: int) -> Any:
    """`store(values, p)`: a tuple of rows of registers to memory, a row every `stride` bytes."""

    @intrinsic
    def store(typingctx, values_type, p):
        def codegen(context: Any, b: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
            for i in range(rows * columns):
                address = b.add(values[1], ir.Constant(values[1].type, i // columns * stride + i % columns * VECTOR_BYTES))
                b.store(b.extract_value(values[0], i), b.inttoptr(address, F32V.as_pointer()), align=4)
            return context.get_dummy_value()

        return signature(types.void, values_type, types.int64), codegen

    return store


def make_values(queries: int, columns: int, stored: Stored) -> Any:
    """`values(acc, acc_stride, row, column, row_bytes, p, positions)`: acc += p @ v over some positions, `columns` registers wide.

    `row`: the first position's values; `column`: where in them to begin.
    """
    step, itemsize = make_value_step(queries, columns, stored), stored.column_bytes // LANES

    @intrinsic
    def gather(typingctx, p, stride):
        def codegen(context: Any, b: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
            made = ir.Constant(ir.ArrayType(F32V, queries * columns), ir.Undefined)
            for i in range(queries):
                row = b.add(values[0], b.mul(values[1], ir.Constant(values[1].type, i)))
                for c in range(columns):
                    made = b.insert_value(made, emit_load(b, row, VECTOR_BYTES * c, F32V), i * columns + c)
            return made

        return signature(types.UniTuple(f32v, queries * columns), types.int64, types.int64), codegen

    @intrinsic
    def scatter(typingctx, acc, p, stride):
        def codegen(context: Any, b: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
            for i in range(queries):
                row = b.add(values[1], b.mul(values[2], ir.Constant(values[2].type, i)))
                for c in range(columns):
                    address = b.add(row, ir.Constant(row.type, VECTOR_BYTES * c))
                    b.store(b.extract_value(values[0], i * columns + c), b.inttoptr(address, F32V.as_pointer()), align=4)
            return context.get_dummy_value()

        return signature(types.void, acc, types.int64, types.int64), codegen

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
