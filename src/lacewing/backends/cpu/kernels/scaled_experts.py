"""The linear of the chosen experts for weights of small floats with a factor for each block of rows and columns.

As experts.py: an expert is read once, for all its pairs of a token and a part; no pair's result depends on another's.
"""

from typing import Any

from lacewing.backends.cpu.arguments import GROUPS_HEAD, MAX_CHUNK, SCALED_EXPERTS, SCRATCH_BYTES, STATE
from lacewing.backends.cpu.kernels.experts import FACTORS as PAIR_FACTORS
from lacewing.backends.cpu.kernels.experts import OUT_OFFSETS, X_OFFSETS, gather_pairs
from lacewing.backends.cpu.kernels.rows import TILE_ROWS, emit_f32, make_tile
from lacewing.backends.cpu.kernels.scaled import FACTORS, narrow_f4, narrow_f8
from lacewing.backends.cpu.kernels.simd import (
    LANES,
    atomic_add,
    fma,
    fma1,
    inline,
    peek_f32,
    peek_i64,
    poke_f32,
    poke_i64,
    splat_f32,
    store_f32,
)
from lacewing.backends.cpu.kernels.small_floats import factor_f8, load_f8, peek_f8, widen_f4, widen_f8

FLOAT_ROWS = PAIR_FACTORS + 4 * MAX_CHUNK
ITEMS = 4  # tiles that a thread takes at once

tall, single = make_tile(TILE_ROWS, 1, emit_f32, peek_f32, 4), make_tile(1, 1, emit_f32, peek_f32, 4)


@inline
def put(args, scratch, expert, row, count, i):
    """The sums of some rows, which stand at the start of the scratch, to the output of pair i: scaled, plus the bias."""
    to = peek_i64(args + SCALED_EXPERTS.out) + peek_i64(scratch + OUT_OFFSETS + 8 * i) + 4 * row
    factor, bias = peek_f32(scratch + PAIR_FACTORS + 4 * i), peek_i64(args + SCALED_EXPERTS.bias)
    for r in range(count):
        shift = peek_f32(bias + 4 * (expert * peek_i64(args + SCALED_EXPERTS.rows) + row + r)) if bias else 0.0
        poke_f32(to + 4 * r, peek_f32(scratch + 4 * r) * factor + shift)


def make_rows(narrow: Any, widen: Any) -> Any:
    """`kernel` for experts stored (outputs, inputs)."""

    @inline
    def tile(args, scratch, expert, row, count, pairs):
        """`count` rows of an expert, 1 or TILE_ROWS, times all its pairs."""
        width, columns = peek_i64(args + SCALED_EXPERTS.width), peek_i64(args + SCALED_EXPERTS.scale_columns)
        first, skip = peek_i64(args + SCALED_EXPERTS.first), peek_i64(args + SCALED_EXPERTS.skip)
        weight = peek_i64(peek_i64(args + SCALED_EXPERTS.weight) + 8 * expert)
        scales = peek_i64(peek_i64(args + SCALED_EXPERTS.scales) + 8 * expert)
        row_bytes, x = peek_i64(args + SCALED_EXPERTS.row_bytes), peek_i64(args + SCALED_EXPERTS.x)
        w, w_stride = weight + (first + skip * row) * row_bytes, skip * row_bytes
        for i in range(count):
            block = (first + skip * (row + i)) // peek_i64(args + SCALED_EXPERTS.scale_rows)
            poke_i64(scratch + FACTORS + 8 * i, scales + block * peek_i64(args + SCALED_EXPERTS.scale_bytes))
        if pairs == 1 and count == TILE_ROWS and columns % LANES == 0:
            narrow(w, w_stride, x + peek_i64(scratch + X_OFFSETS), width, columns, 0, scratch, scratch)
            put(args, scratch, expert, row, count, 0)
        else:
            values = scratch + FLOAT_ROWS
            for i in range(count):
                widen(w + i * w_stride, peek_i64(scratch + FACTORS + 8 * i), width, columns, values + 4 * width * i)
            for i in range(pairs):
                at = x + peek_i64(scratch + X_OFFSETS + 8 * i)
                if count == TILE_ROWS:
                    tall(values, 4 * width, at, 0, width, 0, scratch, 0, scratch)
                else:
                    single(values, 0, at, 0, width, 0, scratch, 0, scratch)
                put(args, scratch, expert, row, count, i)

    def kernel(args, state, thread, threads):
        scratch = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
        rows, groups = peek_i64(args + SCALED_EXPERTS.rows), peek_i64(args + SCALED_EXPERTS.groups)
        fits = 4 * TILE_ROWS * peek_i64(args + SCALED_EXPERTS.width) <= SCRATCH_BYTES - FLOAT_ROWS
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
                expert, end = peek_i64(groups + GROUPS_HEAD + 8 * index), min(row + TILE_ROWS, rows)
                while row < end:
                    count = TILE_ROWS if fits and end - row == TILE_ROWS else 1
                    tile(args, scratch, expert, row, count, pairs)
                    row += count

    return kernel


@inline
def columns_of(args, expert, column, x, scratch):
    """LANES outputs of one pair to the scratch, from `column` on, whose columns share their factors."""
    weight = peek_i64(peek_i64(args + SCALED_EXPERTS.weight) + 8 * expert) + column
    scales = peek_i64(peek_i64(args + SCALED_EXPERTS.scales) + 8 * expert)
    block, high = column // peek_i64(args + SCALED_EXPERTS.scale_columns), peek_i64(args + SCALED_EXPERTS.scale_rows)
    row_bytes, width = peek_i64(args + SCALED_EXPERTS.row_bytes), peek_i64(args + SCALED_EXPERTS.width)
    total, start = splat_f32(0.0), 0
    while start < width:
        factor = splat_f32(factor_f8(scales + start // high * peek_i64(args + SCALED_EXPERTS.scale_bytes), block))
        for c in range(start, min(start + high, width)):
            total = fma(splat_f32(peek_f32(x + 4 * c)), load_f8(weight + c * row_bytes) * factor, total)
        start += high
    store_f32(scratch, total)


@inline
def column_of(args, expert, column, x):
    """One output of one pair."""
    weight = peek_i64(peek_i64(args + SCALED_EXPERTS.weight) + 8 * expert) + column
    scales = peek_i64(peek_i64(args + SCALED_EXPERTS.scales) + 8 * expert)
    block, high = column // peek_i64(args + SCALED_EXPERTS.scale_columns), peek_i64(args + SCALED_EXPERTS.scale_rows)
    row_bytes, total = peek_i64(args + SCALED_EXPERTS.row_bytes), 0.0
    for c in range(peek_i64(args + SCALED_EXPERTS.width)):
        factor = factor_f8(scales + c // high * peek_i64(args + SCALED_EXPERTS.scale_bytes), block)
        total = fma1(peek_f32(x + 4 * c), peek_f8(weight + c * row_bytes) * factor, total)
    return total


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
            else:
                for r in range(count):
                    poke_f32(scratch + 4 * r, column_of(args, expert, column + skip * r, x))
            put(args, scratch, expert, row, count, i)


rows_f8, rows_f4 = make_rows(narrow_f8, widen_f8), make_rows(narrow_f4, widen_f4)
