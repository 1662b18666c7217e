"""out = x @ weight.T in float32 for weights of small floats with a factor for each block of rows and columns; their embeddings.

A value is rounded once, to float32(value * factor), whether its row is widened first, for several tokens, or on the way,
for one: both give the same bits.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import signature
from numba.extending import intrinsic

from lacewing.backends.cpu.arguments import SCALED, SCALED_EMBED, SCRATCH_BYTES, STATE
from lacewing.backends.cpu.kernels.attention_steps import make_zeros
from lacewing.backends.cpu.kernels.dot import emit_fma
from lacewing.backends.cpu.kernels.rows import TILE_ROWS, emit_f32, emit_step, make_multiply, make_sums
from lacewing.backends.cpu.kernels.simd import (
    LANES,
    atomic_add,
    fma1,
    inline,
    peek_f32,
    peek_i32,
    peek_i64,
    poke_f32,
    poke_i64,
    splat_f32,
)
from lacewing.backends.cpu.kernels.small_floats import (
    column_f4,
    column_f8,
    emit_f4,
    emit_f8,
    factor_f4,
    factor_f8,
    peek_f8,
    widen_f4,
    widen_f8,
)

FACTORS = 64  # in a thread's scratch: addresses of the factors of the rows of a tile; before it the sums of a tile
FLOAT_ROWS = 256  # where widened rows lie

multiply = make_multiply(emit_f32, peek_f32, 4)


def make_step(emit: Any) -> Any:
    """`step(acc, factors, w, row_bytes, x)`: acc[r] += w[r] * factors[r] * x, LANES columns of one token."""

    @intrinsic
    def step(typingctx, acc, factors, w, row_bytes, x):
        def codegen(context: Any, b: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
            acc, factors, w, row_bytes, x = values
            made, columns = acc, emit_f32(b, x)
            for r in range(TILE_ROWS):
                weights = b.fmul(emit(b, emit_step(b, w, row_bytes, r)), b.extract_value(factors, r))
                made = b.insert_value(made, emit_fma(b, weights, columns, b.extract_value(acc, r)), r)
            return made

        return signature(acc, acc, factors, types.int64, types.int64, types.int64), codegen

    return step


def make_narrow(emit: Any, peek: Any, column_of: Any, factor_of: Any) -> Any:
    """`narrow(w, row_bytes, x, width, columns, bias, out, scratch)`: TILE_ROWS rows times one token, widened on the way.

    `columns`, which share a factor, must be whole registers; the addresses of the rows' factors stand at FACTORS.
    """
    zeros, step, sums = make_zeros(TILE_ROWS), make_step(emit), make_sums(TILE_ROWS)
    if peek is None:

        @inline
        def rest(w, scales, x, first, width, columns, total):
            return total

    else:

        @inline
        def rest(w, scales, x, first, width, columns, total):
            for c in range(first, width):
                total = fma1(peek(w + c) * factor_of(scales, c // columns), peek_f32(x + 4 * c), total)
            return total

    @inline
    def narrow(w, row_bytes, x, width, columns, bias, out, scratch):
        whole, acc = width - width % LANES, zeros()
        s0, s1 = peek_i64(scratch + FACTORS), peek_i64(scratch + FACTORS + 8)
        s2, s3 = peek_i64(scratch + FACTORS + 16), peek_i64(scratch + FACTORS + 24)
        for block in range((whole + columns - 1) // columns):
            factors = (
                splat_f32(factor_of(s0, block)),
                splat_f32(factor_of(s1, block)),
                splat_f32(factor_of(s2, block)),
                splat_f32(factor_of(s3, block)),
            )
            for c in range(block * columns, min((block + 1) * columns, whole), LANES):
                acc = step(acc, factors, column_of(w, c), row_bytes, x + 4 * c)
        sums(acc, scratch)
        for r in range(TILE_ROWS):
            scales = peek_i64(scratch + FACTORS + 8 * r)
            total = rest(w + r * row_bytes, scales, x, whole, width, columns, peek_f32(scratch + 4 * r))
            if bias:
                total += peek_f32(bias + 4 * r)
            poke_f32(out + 4 * r, total)

    return narrow


narrow_f8 = make_narrow(emit_f8, peek_f8, column_f8, factor_f8)
narrow_f4 = make_narrow(emit_f4, None, column_f4, factor_f4)


def make_linear(narrow: Any, widen: Any) -> Any:
    """`kernel` of a linear."""

    def kernel(args, state, thread, threads):
        rows, row_bytes, chunk = peek_i64(args + SCALED.rows), peek_i64(args + SCALED.row_bytes), peek_i64(args + SCALED.chunk)
        x, stride, width = peek_i64(args + SCALED.x), peek_i64(args + SCALED.x_stride), peek_i64(args + SCALED.width)
        out, out_stride, bias = peek_i64(args + SCALED.out), peek_i64(args + SCALED.out_stride), peek_i64(args + SCALED.bias)
        high, columns = peek_i64(args + SCALED.scale_rows), peek_i64(args + SCALED.scale_columns)
        tokens = peek_i64(state + (STATE.outputs if peek_i64(args + SCALED.outputs) else STATE.tokens))
        scratch = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
        most = TILE_ROWS if 4 * width * TILE_ROWS <= SCRATCH_BYTES - FLOAT_ROWS else 1
        while True:
            first = atomic_add(peek_i64(args + SCALED.counter), chunk)
            if first >= rows:
                break
            r, end = first, min(first + chunk, rows)
            while r < end:
                w, to, shift = peek_i64(args + SCALED.weight) + r * row_bytes, out + 4 * r, bias + 4 * r if bias else 0
                count = most if end - r >= most else 1
                for i in range(count):
                    at = peek_i64(args + SCALED.scales) + (r + i) // high * peek_i64(args + SCALED.scale_bytes)
                    poke_i64(scratch + FACTORS + 8 * i, at)
                if tokens == 1 and count == TILE_ROWS and columns % LANES == 0:
                    narrow(w, row_bytes, x, width, columns, shift, to, scratch)
                elif tokens > 0:
                    for i in range(count):
                        factors = peek_i64(scratch + FACTORS + 8 * i)
                        widen(w + i * row_bytes, factors, width, columns, scratch + FLOAT_ROWS + 4 * width * i)
                    multiply(
                        scratch + FLOAT_ROWS, 4 * width, count, x, stride, tokens, width, shift, to, out_stride, scratch
                    )  # fmt: skip
                r += count

    return kernel


def make_embed(widen: Any) -> Any:
    """`kernel` for rows of a table, scaled."""

    def kernel(args, state, thread, threads):
        width, scale = peek_i64(args + SCALED_EMBED.width), peek_f32(args + SCALED_EMBED.scale)
        tokens, ids = peek_i64(state + STATE.tokens), peek_i64(state + STATE.ids)
        for t in range(tokens * thread // threads, tokens * (thread + 1) // threads):
            row = peek_i32(ids + 4 * t)
            factors = row // peek_i64(args + SCALED_EMBED.scale_rows) * peek_i64(args + SCALED_EMBED.scale_bytes)
            out = peek_i64(args + SCALED_EMBED.out) + t * peek_i64(args + SCALED_EMBED.out_stride)
            w = peek_i64(args + SCALED_EMBED.weight) + row * peek_i64(args + SCALED_EMBED.row_bytes)
            columns = peek_i64(args + SCALED_EMBED.scale_columns)
            widen(w, peek_i64(args + SCALED_EMBED.scales) + factors, width, columns, out)
            for c in range(width):
                poke_f32(out + 4 * c, peek_f32(out + 4 * c) * scale)

    return kernel


linear_f8, linear_f4 = make_linear(narrow_f8, widen_f8), make_linear(narrow_f4, widen_f4)
embed_f8, embed_f4 = make_embed(widen_f8), make_embed(widen_f4)
