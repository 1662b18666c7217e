"""out = x @ weight.T in float32 for weights of small floats with a factor for each block of rows and columns; their embeddings.

A value is rounded once, to float32(value * factor), whether it is widened first, for several tokens, or on the way, for one:
every (row, token) is the same chain of fused multiply-adds over LANES columns at a time, so that both give the same bits.
"""

from typing import Any

from numba import types

from lacewing.backends.cpu.arguments import SCALED, SCALED_EMBED, SCRATCH_BYTES, STATE
from lacewing.backends.cpu.kernels.attention.steps import make_zeros
from lacewing.backends.cpu.kernels.embed import row_of
from lacewing.backends.cpu.kernels.gemm.dot import emit_fma, emit_load, make_registers
from lacewing.backends.cpu.kernels.gemm.rows import TILE_ROWS, emit_step, make_sums
from lacewing.backends.cpu.kernels.quants.small_floats import (
    column_f4,
    column_f8,
    emit_f4,
    emit_f8,
    emit_pair,
    factor_f4,
    factor_f8,
    peek_f8,
    widen_f4,
    widen_f8,
)
from lacewing.backends.cpu.kernels.simd.instructions import (
    fma1,
    load_f32,
    peek_f32,
    peek_i64,
    poke_f32,
    poke_i64,
    splat_f32,
    store_f32,
    sum_f32,
)
from lacewing.backends.cpu.kernels.simd.registers import F32V, GIVEN, I64, LANES, VECTOR_BYTES, inline, instruction
from lacewing.backends.cpu.kernels.simd.threads import atomic_add

# In the working space of a tile: the sums of one token, the addresses of the rows' factors, what is behind the last whole
# register, a panel of widened columns that stays in the first cache, and the sums of all tokens, lane by lane.
FACTORS, TAILS, PANEL = 64, 128, 512
PANEL_COLUMNS = 1024
SUMS = PANEL + 4 * TILE_ROWS * PANEL_COLUMNS
TILE_TOKENS = 4


def make_panel_step(tokens: int) -> Any:
    """`step(acc, w, x, offsets)`: acc[t * TILE_ROWS + r] += w[r] * x[t], LANES columns; rows of a panel, tokens at offsets of x."""

    @instruction(GIVEN, GIVEN, *[types.int64] * 3)
    def step(b, acc, w, x, offsets):
        made, weights = acc, [emit_load(b, w, 4 * PANEL_COLUMNS * r, F32V) for r in range(TILE_ROWS)]
        for t in range(tokens):
            columns = emit_load(b, b.add(x, emit_load(b, offsets, 8 * t, I64)), 0, F32V)
            for r in range(TILE_ROWS):
                i = t * TILE_ROWS + r
                made = b.insert_value(made, emit_fma(b, weights[r], columns, b.extract_value(acc, i)), i)
        return made

    return step


def make_panel(tokens: int) -> Any:
    """`panel(x, offsets, count, sums, w)`: `count` columns of TILE_ROWS widened rows times some tokens, added to their sums."""
    step, (load, store) = make_panel_step(tokens), make_registers(TILE_ROWS * tokens)

    @inline
    def panel(x, offsets, count, sums, w):
        acc = load(sums)
        for c in range(0, count, LANES):
            acc = step(acc, w + 4 * c, x + 4 * c, offsets)
        store(sums, acc)

    return panel


several, one = make_panel(TILE_TOKENS), make_panel(1)


def make_tile(widen: Any) -> Any:
    """`tile(w, w_stride, rows, width, columns, x, offsets, tokens, space)`: TILE_ROWS rows times all tokens, lane by lane.

    Of fewer `rows` the last one is repeated. `total` gives the sums of their lanes.
    """

    @inline
    def tile(w, w_stride, rows, width, columns, x, offsets, tokens, space):
        whole, start = width - width % LANES, 0
        for i in range(TILE_ROWS * tokens):
            store_f32(space + SUMS + VECTOR_BYTES * i, splat_f32(0.0))
        while start < whole:
            end = min(start + PANEL_COLUMNS, whole)
            for r in range(TILE_ROWS):
                row = min(r, rows - 1)
                scales, to = peek_i64(space + FACTORS + 8 * row), space + PANEL + 4 * PANEL_COLUMNS * r
                widen(w + row * w_stride, scales, start, end, columns, to)
            t = 0
            while t < tokens:
                sums, at = space + SUMS + TILE_ROWS * VECTOR_BYTES * t, offsets + 8 * t
                if tokens - t >= TILE_TOKENS:
                    several(x + 4 * start, at, end - start, sums, space + PANEL)
                    t += TILE_TOKENS
                else:
                    one(x + 4 * start, at, end - start, sums, space + PANEL)
                    t += 1
            start = end
        if whole < width:
            for r in range(rows):
                widen(w + r * w_stride, peek_i64(space + FACTORS + 8 * r), whole, width, columns, space + TAILS + 4 * LANES * r)

    return tile


@inline
def total(space, r, t, x, width):
    """The sum of row r and token t, whose columns begin at x."""
    made, whole = sum_f32(load_f32(space + SUMS + VECTOR_BYTES * (TILE_ROWS * t + r))), width - width % LANES
    for c in range(whole, width):
        made = fma1(peek_f32(space + TAILS + 4 * (LANES * r + c - whole)), peek_f32(x + 4 * c), made)
    return made


def make_step(emit: Any, registers: int) -> Any:
    """`step(acc, factors, w, row_bytes, x)`: acc[r] += w[r] * factors[r] * x, 1 or 2 registers of columns of one token."""

    @instruction(GIVEN, GIVEN, GIVEN, types.int64, types.int64, types.int64)
    def step(b, acc, factors, w, row_bytes, x):
        made, columns = acc, [emit_load(b, x, 4 * LANES * i, F32V) for i in range(registers)]
        for r in range(TILE_ROWS):
            row, factor, value = emit_step(b, w, row_bytes, r), b.extract_value(factors, r), b.extract_value(acc, r)
            for i, weights in enumerate(emit_pair(b, emit, row) if registers == 2 else [emit(b, row)]):
                value = emit_fma(b, b.fmul(weights, factor), columns[i], value)
            made = b.insert_value(made, value, r)
        return made

    return step


def make_narrow(emit: Any, peek: Any, column_of: Any, factor_of: Any) -> Any:
    """`narrow(w, row_bytes, x, width, columns, bias, out, space)`: TILE_ROWS rows times one token, widened on the way.

    `columns`, which share a factor, must be whole registers; the addresses of the rows' factors stand at FACTORS.
    """
    zeros, step, pair, sums = make_zeros(TILE_ROWS), make_step(emit, 1), make_step(emit, 2), make_sums(TILE_ROWS)
    if peek is None:

        @inline
        def rest(w, scales, x, first, width, columns, made):
            return made

    else:

        @inline
        def rest(w, scales, x, first, width, columns, made):
            for c in range(first, width):
                made = fma1(peek(w + c) * factor_of(scales, c // columns), peek_f32(x + 4 * c), made)
            return made

    @inline
    def narrow(w, row_bytes, x, width, columns, bias, out, space):
        whole, acc = width - width % LANES, zeros()
        s0, s1 = peek_i64(space + FACTORS), peek_i64(space + FACTORS + 8)
        s2, s3 = peek_i64(space + FACTORS + 16), peek_i64(space + FACTORS + 24)
        for block in range((whole + columns - 1) // columns):
            factors = (
                splat_f32(factor_of(s0, block)),
                splat_f32(factor_of(s1, block)),
                splat_f32(factor_of(s2, block)),
                splat_f32(factor_of(s3, block)),
            )
            c, last = block * columns, min((block + 1) * columns, whole)
            while c + 2 * LANES <= last:
                acc = pair(acc, factors, column_of(w, c), row_bytes, x + 4 * c)
                c += 2 * LANES
            if c < last:
                acc = step(acc, factors, column_of(w, c), row_bytes, x + 4 * c)
        sums(acc, space)
        for r in range(TILE_ROWS):
            scales = peek_i64(space + FACTORS + 8 * r)
            made = rest(w + r * row_bytes, scales, x, whole, width, columns, peek_f32(space + 4 * r))
            if bias:
                made += peek_f32(bias + 4 * r)
            poke_f32(out + 4 * r, made)

    return narrow


narrow_f8 = make_narrow(emit_f8, peek_f8, column_f8, factor_f8)
narrow_f4 = make_narrow(emit_f4, None, column_f4, factor_f4)


def make_linear(narrow: Any, widen: Any) -> Any:
    """`kernel` of a linear."""
    tile = make_tile(widen)

    def kernel(args, state, thread, threads):
        rows, row_bytes, chunk = peek_i64(args + SCALED.rows), peek_i64(args + SCALED.row_bytes), peek_i64(args + SCALED.chunk)
        x, offsets, width = peek_i64(args + SCALED.x), peek_i64(args + SCALED.x_offsets), peek_i64(args + SCALED.width)
        out, out_stride, bias = peek_i64(args + SCALED.out), peek_i64(args + SCALED.out_stride), peek_i64(args + SCALED.bias)
        high, columns = peek_i64(args + SCALED.scale_rows), peek_i64(args + SCALED.scale_columns)
        tokens = peek_i64(state + (STATE.outputs if peek_i64(args + SCALED.outputs) else STATE.tokens))
        space = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
        while True:
            first = atomic_add(peek_i64(args + SCALED.counter), chunk)
            if first >= rows or tokens == 0:
                break
            for row in range(first, min(first + chunk, rows), TILE_ROWS):
                w, count = peek_i64(args + SCALED.weight) + row * row_bytes, min(TILE_ROWS, rows - row)
                for r in range(count):
                    at = peek_i64(args + SCALED.scales) + (row + r) // high * peek_i64(args + SCALED.scale_bytes)
                    poke_i64(space + FACTORS + 8 * r, at)
                to = out + 4 * row
                if tokens == 1 and count == TILE_ROWS and columns % LANES == 0:
                    narrow(w, row_bytes, x, width, columns, bias + 4 * row if bias else 0, to, space)
                else:
                    tile(w, row_bytes, count, width, columns, x, offsets, tokens, space)
                    for t in range(tokens):
                        for r in range(count):
                            y = total(space, r, t, x + peek_i64(offsets + 8 * t), width)
                            poke_f32(to + t * out_stride + 4 * r, y + peek_f32(bias + 4 * (row + r)) if bias else y)

    return kernel


def make_embed(widen: Any) -> Any:
    """`kernel` for rows of a table, scaled."""

    def kernel(args, state, thread, threads):
        width, scale = peek_i64(args + SCALED_EMBED.width), peek_f32(args + SCALED_EMBED.scale)
        tokens, ids = peek_i64(state + STATE.tokens), peek_i64(state + STATE.ids)
        for t in range(tokens * thread // threads, tokens * (thread + 1) // threads):
            row = row_of(args, ids, t)
            if row < 0:  # its values are there already
                continue
            factors = row // peek_i64(args + SCALED_EMBED.scale_rows) * peek_i64(args + SCALED_EMBED.scale_bytes)
            out = peek_i64(args + SCALED_EMBED.out) + t * peek_i64(args + SCALED_EMBED.out_stride)
            w = peek_i64(args + SCALED_EMBED.weight) + row * peek_i64(args + SCALED_EMBED.row_bytes)
            columns = peek_i64(args + SCALED_EMBED.scale_columns)
            widen(w, peek_i64(args + SCALED_EMBED.scales) + factors, 0, width, columns, out)
            for c in range(width):
                poke_f32(out + 4 * c, peek_f32(out + 4 * c) * scale)

    return kernel


linear_f8, linear_f4 = make_linear(narrow_f8, widen_f8), make_linear(narrow_f4, widen_f4)
embed_f8, embed_f4 = make_embed(widen_f8), make_embed(widen_f4)
