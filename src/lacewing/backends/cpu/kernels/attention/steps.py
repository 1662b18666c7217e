"""The inner loops of attention as register tiles: scores of queries with positions, and weighted sums of values.

Keys and values are float16, or float32 where the weights are: `half` says which.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import signature
from numba.extending import intrinsic

from lacewing.backends.cpu.kernels.gemm.dot import emit_fma, emit_load
from lacewing.backends.cpu.kernels.simd.registers import F16, F32, F32V, LANES, VECTOR_BYTES, f32v, inline, splat

BLOCK = 128  # positions between two corrections of the running maximum


def emit_element(b: ir.IRBuilder, base: ir.Value, register: int, half: bool) -> ir.Value:
    """LANES keys or values, as float32."""
    if half:
        return b.fpext(emit_load(b, base, 2 * LANES * register, ir.VectorType(F16, LANES)), F32V)
    return emit_load(b, base, VECTOR_BYTES * register, F32V)


def make_score_step(queries: int, blocks: int, half: bool) -> Any:
    """`step(acc, key, key_stride, q, q_stride)`: acc[i * blocks + j] += key[j] * q[i], both so many bytes apart."""

    @intrinsic
    def step(typingctx, acc, key, key_stride, q, q_stride):
        def codegen(context: Any, b: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
            acc, key, key_stride, q, q_stride = values
            positions = [
                emit_element(b, b.add(key, b.mul(key_stride, ir.Constant(key_stride.type, j))), 0, half) for j in range(blocks)
            ]
            made = acc
            for i in range(queries):
                x = splat(b, emit_load(b, b.add(q, b.mul(q_stride, ir.Constant(q_stride.type, i))), 0, F32))
                for j, each in enumerate(positions):
                    at = i * blocks + j
                    made = b.insert_value(made, emit_fma(b, each, x, b.extract_value(acc, at)), at)
            return made

        return signature(acc, acc, *[types.int64] * 4), codegen

    return step


def make_value_step(queries: int, columns: int, half: bool) -> Any:
    """`step(acc, value, p, stride)`: acc[i * columns + c] += p[i] * value[c]."""

    @intrinsic
    def step(typingctx, acc, value, p, stride):
        def codegen(context: Any, b: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
            acc, value, p, stride = values
            rows = [emit_element(b, value, c, half) for c in range(columns)]
            made = acc
            for i in range(queries):
                x = splat(b, emit_load(b, b.add(p, b.mul(stride, ir.Constant(stride.type, i))), 0, F32))
                for c, row in enumerate(rows):
                    at = i * columns + c
                    made = b.insert_value(made, emit_fma(b, row, x, b.extract_value(acc, at)), at)
            return made

        return signature(acc, acc, types.int64, types.int64, types.int64), codegen

    return step


def make_scores(queries: int, blocks: int, half: bool) -> Any:
    """`scores(q, stride, width, keys, out)`: dot products of some queries with LANES positions times `blocks`.

    Each sum is one chain of additions, each of which waits for the last: some chains at once keep the processor busy. In out
    the queries are BLOCK positions apart.
    """
    zeros, scatter = make_zeros(queries * blocks), make_scatter(queries, blocks, 4 * BLOCK)
    step, key_bytes = make_score_step(queries, blocks, half), (2 if half else 4) * LANES

    @inline
    def scores(q, stride, width, keys, out):
        acc = zeros()
        for c in range(width):
            acc = step(acc, keys + key_bytes * c, key_bytes * width, q + 4 * c, stride)
        scatter(acc, out)

    return scores


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


def make_values(queries: int, columns: int, half: bool) -> Any:
    """`values(acc, acc_stride, v, v_stride, p, positions)`: acc += p @ v over some positions, `columns` registers wide."""
    step = make_value_step(queries, columns, half)

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
    def run(acc, acc_stride, v, v_stride, p, positions):
        registers = gather(acc, acc_stride)
        for j in range(positions):
            registers = step(registers, v + j * v_stride, p + 4 * j, 4 * BLOCK)
        scatter(registers, acc, acc_stride)

    return run
