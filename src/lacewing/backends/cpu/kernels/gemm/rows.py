"""out = x @ weight.T in float32, for float weights and for quants that are dequantised row by row inside the kernel.

Every (row, token) is one chain of fused multiply-adds over LANES columns at a time, whatever the tiling, so that results
do not depend on how many tokens or rows are treated together.
"""

from typing import Any

from llvmlite import ir
from numba import types

from lacewing.backends.cpu.arguments import GATHER, ROWS, SCRATCH_BYTES, STATE
from lacewing.backends.cpu.kernels.attention.steps import make_zeros
from lacewing.backends.cpu.kernels.gemm.dot import emit_fma, emit_load
from lacewing.backends.cpu.kernels.simd.instructions import (
    fma1,
    peek_bf16,
    peek_f16,
    peek_f32,
    peek_i32,
    peek_i64,
    poke_f32,
    reduce_lanes,
)
from lacewing.backends.cpu.kernels.simd.registers import F16, F32V, GIVEN, I16, I32V, LANES, constant, inline, instruction
from lacewing.backends.cpu.kernels.simd.threads import atomic_add, call_kernel

TILE_ROWS, TILE_TOKENS = 4, 4  # of one register tile
FLOAT_ROWS = 256  # where dequantised rows lie in the scratch; its beginning holds the sums of a tile


def emit_f32(b: ir.IRBuilder, p: ir.Value) -> ir.Value:
    return emit_load(b, p, 0, F32V)


def emit_f16(b: ir.IRBuilder, p: ir.Value) -> ir.Value:
    return b.fpext(emit_load(b, p, 0, ir.VectorType(F16, LANES)), F32V)


def emit_bf16(b: ir.IRBuilder, p: ir.Value) -> ir.Value:
    return b.bitcast(b.shl(b.zext(emit_load(b, p, 0, ir.VectorType(I16, LANES)), I32V), constant(I32V, 16)), F32V)


def emit_step(b: ir.IRBuilder, base: ir.Value, stride: ir.Value, count: int) -> ir.Value:
    """base + count * stride."""
    return b.add(base, b.mul(stride, ir.Constant(stride.type, count)))


def make_step(rows: int, tokens: int, widen: Any) -> Any:
    """`step(acc, w, row_bytes, x, stride)`: acc[r * tokens + t] += w[r] * x[t], LANES columns."""

    @instruction(GIVEN, GIVEN, *[types.int64] * 4)
    def step(b, acc, w, row_bytes, x, stride):
        weights = [widen(b, emit_step(b, w, row_bytes, r)) for r in range(rows)]
        columns = [emit_f32(b, emit_step(b, x, stride, t)) for t in range(tokens)]
        made = acc
        for r in range(rows):
            for t in range(tokens):
                i = r * tokens + t
                made = b.insert_value(made, emit_fma(b, weights[r], columns[t], b.extract_value(acc, i)), i)
        return made

    return step


def make_sums(count: int) -> Any:
    """`sums(acc, p)`: the lane sums of a tuple of registers to consecutive float32."""

    @instruction(types.void, GIVEN, types.int64)
    def sums(b, acc, p):
        for i in range(count):
            total = reduce_lanes(b, b.extract_value(acc, i), b.fadd)
            b.store(total, b.inttoptr(b.add(p, ir.Constant(p.type, 4 * i)), total.type.as_pointer()), align=4)

    return sums


def make_tile(rows: int, tokens: int, widen: Any, peek: Any, itemsize: int) -> Any:
    """`tile(w, row_bytes, x, stride, width, bias, out, out_stride, scratch)`: some rows times some tokens."""
    zeros, step, sums = make_zeros(rows * tokens), make_step(rows, tokens, widen), make_sums(rows * tokens)

    @inline
    def tile(w, row_bytes, x, stride, width, bias, out, out_stride, scratch):
        whole = width - width % LANES
        acc = zeros()
        for c in range(0, whole, LANES):
            acc = step(acc, w + itemsize * c, row_bytes, x + 4 * c, stride)
        sums(acc, scratch)
        for r in range(rows):
            for t in range(tokens):
                total = peek_f32(scratch + 4 * (r * tokens + t))
                for c in range(whole, width):
                    total = fma1(peek(w + r * row_bytes + itemsize * c), peek_f32(x + t * stride + 4 * c), total)
                if bias:
                    total += peek_f32(bias + 4 * r)
                poke_f32(out + t * out_stride + 4 * r, total)

    return tile


def make_multiply(widen: Any, peek: Any, itemsize: int) -> Any:
    """`multiply(w, w_stride, count, x, stride, tokens, width, bias, to, out_stride, scratch)`: one or TILE_ROWS rows."""
    wide, tall = make_tile(TILE_ROWS, TILE_TOKENS, widen, peek, itemsize), make_tile(TILE_ROWS, 1, widen, peek, itemsize)
    flat, single = make_tile(1, TILE_TOKENS, widen, peek, itemsize), make_tile(1, 1, widen, peek, itemsize)

    @inline
    def multiply(w, w_stride, count, x, stride, tokens, width, bias, to, out_stride, scratch):
        t = 0
        while t < tokens:
            at, here = x + t * stride, to + t * out_stride
            if count > 1 and tokens - t >= TILE_TOKENS:
                wide(w, w_stride, at, stride, width, bias, here, out_stride, scratch)
                t += TILE_TOKENS
            elif count > 1:
                tall(w, w_stride, at, stride, width, bias, here, out_stride, scratch)
                t += 1
            elif tokens - t >= TILE_TOKENS:
                flat(w, w_stride, at, stride, width, bias, here, out_stride, scratch)
                t += TILE_TOKENS
            else:
                single(w, w_stride, at, stride, width, bias, here, out_stride, scratch)
                t += 1

    return multiply


def make_linear(widen: Any, peek: Any, itemsize: int, dequantised: bool = False) -> Any:
    """`kernel` for weights of floats, or, `dequantised`, of any quant with a dequantiser: some rows at a time to float32 first."""
    multiply = make_multiply(widen, peek, itemsize)

    def kernel(args, state, thread, threads):
        rows, row_bytes, chunk = peek_i64(args + ROWS.rows), peek_i64(args + ROWS.row_bytes), peek_i64(args + ROWS.chunk)
        x, stride, width = peek_i64(args + ROWS.x), peek_i64(args + ROWS.x_stride), peek_i64(args + ROWS.width)
        out, out_stride, bias = peek_i64(args + ROWS.out), peek_i64(args + ROWS.out_stride), peek_i64(args + ROWS.bias)
        tokens = peek_i64(state + (STATE.outputs if peek_i64(args + ROWS.outputs) else STATE.tokens))
        scratch = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
        float_rows = scratch + FLOAT_ROWS
        most = TILE_ROWS if not dequantised or 4 * width * TILE_ROWS <= SCRATCH_BYTES - FLOAT_ROWS else 1
        while True:
            first = atomic_add(peek_i64(args + ROWS.counter), chunk)
            if first >= rows:
                break
            r, end = first, min(first + chunk, rows)
            while r < end:
                w, w_stride = peek_i64(args + ROWS.weight) + r * row_bytes, row_bytes
                to, shift = out + 4 * r, bias + 4 * r if bias else 0
                count = most if end - r >= most else 1
                if dequantised:
                    call_kernel(peek_i64(args + ROWS.dequantise), w, peek_i64(args + ROWS.blocks) * count, float_rows, 0)
                    w, w_stride = float_rows, 4 * width
                multiply(w, w_stride, count, x, stride, tokens, width, shift, to, out_stride, scratch)
                r += count

    return kernel


linear_f32 = make_linear(emit_f32, peek_f32, 4)
linear_f16 = make_linear(emit_f16, peek_f16, 2)
linear_bf16 = make_linear(emit_bf16, peek_bf16, 2)
linear_generic = make_linear(emit_f32, peek_f32, 4, dequantised=True)


def gather(args, state, thread, threads):
    """The rows of which logits are wanted, copied together: the input of a float output matrix."""
    x, x_stride, width = peek_i64(args + GATHER.x), peek_i64(args + GATHER.x_stride), peek_i64(args + GATHER.width)
    out, out_stride, picks = peek_i64(args + GATHER.out), peek_i64(args + GATHER.out_stride), peek_i64(state + STATE.picks)
    rows = peek_i64(state + STATE.outputs)
    for r in range(rows * thread // threads, rows * (thread + 1) // threads):
        source = x + peek_i32(picks + 4 * r) * x_stride
        for c in range(width):
            poke_f32(out + r * out_stride + 4 * c, peek_f32(source + 4 * c))
