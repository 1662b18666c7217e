"""The linear of the chosen experts for weights of small floats with a factor for each block of rows and columns.

As experts.py: an expert is read once, for all its pairs of a token and a part; no pair's result depends on another's.
"""

from typing import Any

from lacewing.backends.cpu.arguments import GROUPS_HEAD, MAX_CHUNK, SCALED_EXPERTS, SCRATCH_BYTES, STATE
from lacewing.backends.cpu.kernels.experts.linear import FACTORS as PAIR_FACTORS
from lacewing.backends.cpu.kernels.experts.linear import OUT_OFFSETS, X_OFFSETS, gather_pairs
from lacewing.backends.cpu.kernels.gemm.scaled import FACTORS, TILE_ROWS, make_tile, narrow_f4, narrow_f8, total
from lacewing.backends.cpu.kernels.quants.small_floats import factor_f8, load_f8, peek_f8, widen_f4, widen_f8
from lacewing.backends.cpu.kernels.simd.instructions import fma, fma1, peek_f32, peek_i64, poke_f32, poke_i64, splat_f32, store_f32
from lacewing.backends.cpu.kernels.simd.registers import LANES, inline
from lacewing.backends.cpu.kernels.simd.threads import atomic_add

SPACE = PAIR_FACTORS + 4 * MAX_CHUNK  # of a tile
ITEMS = 4  # tiles that a thread takes at once


@inline
def put(args, scratch, expert, row, i, y):
    """One output of pair i: scaled, plus the bias."""
    to = peek_i64(args + SCALED_EXPERTS.out) + peek_i64(scratch + OUT_OFFSETS + 8 * i) + 4 * row
    bias = peek_i64(args + SCALED_EXPERTS.bias)
    shift = peek_f32(bias + 4 * (expert * peek_i64(args + SCALED_EXPERTS.rows) + row)) if bias else 0.0
    poke_f32(to, y * peek_f32(scratch + PAIR_FACTORS + 4 * i) + shift)


def make_rows(narrow: Any, widen: Any) -> Any:
    """`kernel` for experts stored (outputs, inputs)."""
    tile = make_tile(widen)

    @inline
    def run_tile(args, scratch, expert, row, count, pairs):
        """`count` rows of an expert times all its pairs."""
        width, columns = peek_i64(args + SCALED_EXPERTS.width), peek_i64(args + SCALED_EXPERTS.scale_columns)
        first, skip = peek_i64(args + SCALED_EXPERTS.first), peek_i64(args + SCALED_EXPERTS.skip)
        weight = peek_i64(peek_i64(args + SCALED_EXPERTS.weight) + 8 * expert)
        scales = peek_i64(peek_i64(args + SCALED_EXPERTS.scales) + 8 * expert)
        row_bytes, x, space = peek_i64(args + SCALED_EXPERTS.row_bytes), peek_i64(args + SCALED_EXPERTS.x), scratch + SPACE
        w, w_stride = weight + (first + skip * row) * row_bytes, skip * row_bytes
        for r in range(count):
            block = (first + skip * (row + r)) // peek_i64(args + SCALED_EXPERTS.scale_rows)
            poke_i64(space + FACTORS + 8 * r, scales + block * peek_i64(args + SCALED_EXPERTS.scale_bytes))
        if pairs == 1 and count == TILE_ROWS and columns % LANES == 0:
            narrow(w, w_stride, x + peek_i64(scratch + X_OFFSETS), width, columns, 0, space, space)
            for r in range(count):
                put(args, scratch, expert, row + r, 0, peek_f32(space + 4 * r))
        else:
            tile(w, w_stride, count, width, columns, x, scratch + X_OFFSETS, pairs, space)
            for i in range(pairs):
                for r in range(count):
                    at = x + peek_i64(scratch + X_OFFSETS + 8 * i)
                    put(args, scratch, expert, row + r, i, total(space, r, i, at, width))

    def kernel(args, state, thread, threads):
        scratch = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
        rows, groups = peek_i64(args + SCALED_EXPERTS.rows), peek_i64(args + SCALED_EXPERTS.groups)
        tiles = (rows + TILE_ROWS - 1) // TILE_ROWS
        todo, current, pairs = tiles * peek_i64(groups), -1, 0
        while True:
            first = ITEMS * atomic_add(peek_i64(args + SCALED_EXPERTS.counter), 1)
            if first >= todo:
                break
            for item in range(first, min(first + ITEMS, todo)):
                index, row = item // tiles, item % tiles * TILE_ROWS
                if index != current:
                    current = index
                    pairs = gather_pairs(SCALED_EXPERTS, args, scratch, groups, peek_i64(args + SCALED_EXPERTS.experts), index)
                expert = peek_i64(groups + GROUPS_HEAD + 8 * index)
                run_tile(args, scratch, expert, row, min(TILE_ROWS, rows - row), pairs)

    return kernel


@inline
def columns_of(args, expert, column, x, scratch):
    """LANES outputs of one pair to the scratch, from `column` on, whose columns share their factors."""
    weight = peek_i64(peek_i64(args + SCALED_EXPERTS.weight) + 8 * expert) + column
    scales = peek_i64(peek_i64(args + SCALED_EXPERTS.scales) + 8 * expert)
    block, high = column // peek_i64(args + SCALED_EXPERTS.scale_columns), peek_i64(args + SCALED_EXPERTS.scale_rows)
    row_bytes, width = peek_i64(args + SCALED_EXPERTS.row_bytes), peek_i64(args + SCALED_EXPERTS.width)
    made, start = splat_f32(0.0), 0
    while start < width:
        factor = splat_f32(factor_f8(scales + start // high * peek_i64(args + SCALED_EXPERTS.scale_bytes), block))
        for c in range(start, min(start + high, width)):
            made = fma(splat_f32(peek_f32(x + 4 * c)), load_f8(weight + c * row_bytes) * factor, made)
        start += high
    store_f32(scratch, made)


@inline
def column_of(args, expert, column, x):
    """One output of one pair."""
    weight = peek_i64(peek_i64(args + SCALED_EXPERTS.weight) + 8 * expert) + column
    scales = peek_i64(peek_i64(args + SCALED_EXPERTS.scales) + 8 * expert)
    block, high = column // peek_i64(args + SCALED_EXPERTS.scale_columns), peek_i64(args + SCALED_EXPERTS.scale_rows)
    row_bytes, made = peek_i64(args + SCALED_EXPERTS.row_bytes), 0.0
    for c in range(peek_i64(args + SCALED_EXPERTS.width)):
        factor = factor_f8(scales + c // high * peek_i64(args + SCALED_EXPERTS.scale_bytes), block)
        made = fma1(peek_f32(x + 4 * c), peek_f8(weight + c * row_bytes) * factor, made)
    return made


def columns_f8(args, state, thread, threads):
    """Experts stored (inputs, outputs): sums of rows, LANES outputs at once."""
    scratch = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
    rows, groups = peek_i64(args + SCALED_EXPERTS.rows), peek_i64(args + SCALED_EXPERTS.groups)
    first, skip = peek_i64(args + SCALED_EXPERTS.first), peek_i64(args + SCALED_EXPERTS.skip)
    wide = peek_i64(args + SCALED_EXPERTS.scale_columns)
    pieces = (rows + LANES - 1) // LANES
    todo, current, pairs = pieces * peek_i64(groups), -1, 0
    while True:
        item = atomic_add(peek_i64(args + SCALED_EXPERTS.counter), 1)
        if item >= todo:
            break
        index, row = item // pieces, item % pieces * LANES
        if index != current:
            current = index
            pairs = gather_pairs(SCALED_EXPERTS, args, scratch, groups, peek_i64(args + SCALED_EXPERTS.experts), index)
        expert, count = peek_i64(groups + GROUPS_HEAD + 8 * index), min(LANES, rows - row)
        column = first + skip * row
        whole = skip == 1 and count == LANES and column // wide == (column + LANES - 1) // wide
        for i in range(pairs):
            x = peek_i64(args + SCALED_EXPERTS.x) + peek_i64(scratch + X_OFFSETS + 8 * i)
            if whole:
                columns_of(args, expert, column, x, scratch)
            for r in range(count):
                y = peek_f32(scratch + 4 * r) if whole else column_of(args, expert, column + skip * r, x)
                put(args, scratch, expert, row + r, i, y)


rows_f8, rows_f4 = make_rows(narrow_f8, widen_f8), make_rows(narrow_f4, widen_f4)
