"""The linear of the chosen experts: each expert that any token chose is read once, and multiplied with all its tokens.

Work is cut into (expert, tile) items, expert by expert. What a pair (token, part) gets does not depend on the other pairs.
"""

from typing import Any

from lacewing.backends.cpu.arguments import EXPERT_COLUMNS, EXPERT_ROWS, EXPERTS, GROUPS_HEAD, JOB, MAX_CHUNK, SCRATCH_BYTES, STATE
from lacewing.backends.cpu.kernels.gemm.dot import ACC_AT, JOB_AT, room_of
from lacewing.backends.cpu.kernels.gemm.linear import clear, one_tile, own_share, pairs_of, piece, two_tiles
from lacewing.backends.cpu.kernels.gemm.rows import emit_bf16, emit_f16, emit_f32, make_tile
from lacewing.backends.cpu.kernels.simd.instructions import (
    fma,
    fma1,
    load_bf16,
    load_f16,
    load_f32,
    peek_bf16,
    peek_f16,
    peek_f32,
    peek_i64,
    poke_f32,
    poke_i64,
    splat_f32,
    store_f32,
)
from lacewing.backends.cpu.kernels.simd.registers import LANES, VECTOR_BYTES, inline
from lacewing.backends.cpu.kernels.simd.threads import atomic_add, call_kernel

X_OFFSETS = ACC_AT + MAX_CHUNK * VECTOR_BYTES  # in a thread's scratch, behind the job
OUT_OFFSETS = X_OFFSETS + 8 * MAX_CHUNK
FACTORS = OUT_OFFSETS + 8 * MAX_CHUNK


@inline
def gather_pairs(table, args, scratch, groups, experts_room, index):
    """Where the pairs of the index-th chosen expert read, write, and what they are scaled by; how many there are.

    `table` holds the offsets of the words in args; experts_room: how many experts the lists of groups have room for.
    """
    starts = groups + GROUPS_HEAD + 8 * experts_room
    order, first = starts + 8 * (experts_room + 1), peek_i64(starts + 8 * index)
    count = peek_i64(starts + 8 * (index + 1)) - first
    parts, factor = peek_i64(args + table.parts), peek_i64(args + table.factor)
    for i in range(count):
        pair = peek_i64(order + 8 * (first + i))
        t, a = pair // parts, pair % parts
        poke_i64(scratch + X_OFFSETS + 8 * i, t * peek_i64(args + table.x_stride) + a * peek_i64(args + table.x_part))
        poke_i64(scratch + OUT_OFFSETS + 8 * i, t * peek_i64(args + table.out_stride) + a * peek_i64(args + table.out_part))
        scale = peek_f32(factor + t * peek_i64(args + table.factor_stride) + 4 * a) if factor else 1.0
        poke_f32(scratch + FACTORS + 4 * i, scale)
    return count


def linear(args, state, thread, threads):
    """For quants with an unpacker."""
    scratch = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
    job = scratch + JOB_AT
    poke_i64(job + JOB.tile, scratch)
    poke_i64(job + JOB.acc, scratch + ACC_AT)
    poke_i64(job + JOB.offsets, scratch + X_OFFSETS)
    poke_i64(job + JOB.stride, 0)
    poke_i64(job + JOB.shift, peek_i64(args + EXPERTS.shift))
    tiles = (peek_i64(args + EXPERTS.rows) + LANES - 1) // LANES
    todo = tiles * peek_i64(peek_i64(args + EXPERTS.groups))
    share = own_share(todo, threads)
    first, end = piece(atomic_add(peek_i64(args + EXPERTS.counter), 1), todo, threads)
    run_items(args, scratch, tiles, thread * share, (thread + 1) * share, min(first, todo - 1))
    while first < todo:
        now, until = first, end
        first, end = piece(atomic_add(peek_i64(args + EXPERTS.counter), 1), todo, threads)
        run_items(args, scratch, tiles, now, until, min(first, todo - 1))


@inline
def tile_address(args, tiles, item):
    """Where the weights of an item begin."""
    expert = peek_i64(peek_i64(args + EXPERTS.groups) + GROUPS_HEAD + 8 * (item // tiles))
    row = min(item % tiles * LANES, peek_i64(args + EXPERTS.rows) - LANES)
    return peek_i64(peek_i64(args + EXPERTS.weight) + 8 * expert) + row * peek_i64(args + EXPERTS.row_bytes)


@inline
def run_items(args, scratch, tiles, first, end, after):
    """Items from `first` to `end`; then the thread goes on with `after`. An item is a tile of one of the chosen experts."""
    rows, row_bytes, groups = peek_i64(args + EXPERTS.rows), peek_i64(args + EXPERTS.row_bytes), peek_i64(args + EXPERTS.groups)
    job, acc, item = scratch + JOB_AT, scratch + ACC_AT, first
    while item < end:
        index = item // tiles
        stretch = min(end, (index + 1) * tiles)  # of tiles that follow each other in memory
        count = gather_pairs(EXPERTS, args, scratch, groups, peek_i64(args + EXPERTS.experts), index)
        poke_i64(job + JOB.tokens, count)
        half = pairs_of(args, count, stretch - item)
        last = tile_address(args, tiles, (item + half if half else stretch) - 1) + LANES * row_bytes
        poke_i64(job + JOB.end, last)
        poke_i64(job + JOB.jump, tile_address(args, tiles, stretch if stretch < end else after) - last)
        for each in range(item, item + half):
            two_tiles(args, job, acc, tile_address(args, tiles, each), half * LANES * row_bytes)
            put(args, scratch, acc, index, each % tiles * LANES, count)
            put(args, scratch, acc + VECTOR_BYTES * room_of(count), index, (each + half) % tiles * LANES, count)
        for each in range(item + 2 * half, stretch):
            clear(acc, room_of(count))
            following = tile_address(args, tiles, each + 1 if each + 1 < end else after)
            one_tile(args, job, tile_address(args, tiles, each), row_bytes, following)
            put(args, scratch, acc, index, min(each % tiles * LANES, rows - LANES), count)
        item = stretch


@inline
def put(args, scratch, acc, index, row, count):
    """What a tile whose first row is `row` gives for the pairs of the index-th chosen expert."""
    expert = peek_i64(peek_i64(args + EXPERTS.groups) + GROUPS_HEAD + 8 * index)
    bias, out = peek_i64(args + EXPERTS.bias), peek_i64(args + EXPERTS.out) + 4 * row
    shift = load_f32(bias + 4 * (expert * peek_i64(args + EXPERTS.rows) + row)) if bias else splat_f32(0.0)
    for i in range(count):
        y = load_f32(acc + VECTOR_BYTES * i) * splat_f32(peek_f32(scratch + FACTORS + 4 * i))
        store_f32(out + peek_i64(scratch + OUT_OFFSETS + 8 * i), y + shift)


def make_rows(widen: Any, peek: Any, itemsize: int, dequantise: bool = False) -> Any:
    """`kernel` for experts of floats, or of quants that are dequantised row by row."""
    single = make_tile(1, 1, widen, peek, itemsize)

    def kernel(args, state, thread, threads):
        scratch = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
        sums, values = scratch, scratch + FACTORS + 4 * MAX_CHUNK
        rows, row_bytes, width = (
            peek_i64(args + EXPERT_ROWS.rows),
            peek_i64(args + EXPERT_ROWS.row_bytes),
            peek_i64(args + EXPERT_ROWS.width),
        )
        groups, bias = peek_i64(args + EXPERT_ROWS.groups), peek_i64(args + EXPERT_ROWS.bias)
        todo, current, count = rows * peek_i64(groups), -1, 0
        while True:
            first = 16 * atomic_add(peek_i64(args + EXPERT_ROWS.counter), 1)
            if first >= todo:
                break
            for item in range(first, min(first + 16, todo)):
                index, row = item // rows, item % rows
                if index != current:
                    current = index
                    count = gather_pairs(EXPERT_ROWS, args, scratch, groups, peek_i64(args + EXPERT_ROWS.experts), index)
                expert = peek_i64(groups + GROUPS_HEAD + 8 * index)
                w = peek_i64(peek_i64(args + EXPERT_ROWS.weight) + 8 * expert) + row * row_bytes
                if dequantise:
                    call_kernel(peek_i64(args + EXPERT_ROWS.dequantise), w, peek_i64(args + EXPERT_ROWS.blocks), values, 0)
                    w = values
                shift = peek_f32(bias + 4 * (expert * rows + row)) if bias else 0.0
                for i in range(count):
                    x = peek_i64(args + EXPERT_ROWS.x) + peek_i64(scratch + X_OFFSETS + 8 * i)
                    single(w, 0, x, 0, width, 0, sums, 0, sums)
                    to = peek_i64(args + EXPERT_ROWS.out) + 4 * row + peek_i64(scratch + OUT_OFFSETS + 8 * i)
                    poke_f32(to, peek_f32(sums) * peek_f32(scratch + FACTORS + 4 * i) + shift)

    return kernel


def make_columns(load: Any, peek: Any, itemsize: int) -> Any:
    """`kernel` for experts of floats that are stored (inputs, outputs): sums of rows, LANES outputs at once."""

    def kernel(args, state, thread, threads):
        scratch = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
        rows, row_bytes, width = (
            peek_i64(args + EXPERT_COLUMNS.rows),
            peek_i64(args + EXPERT_COLUMNS.row_bytes),
            peek_i64(args + EXPERT_COLUMNS.width),
        )
        groups, bias = peek_i64(args + EXPERT_COLUMNS.groups), peek_i64(args + EXPERT_COLUMNS.bias)
        skip = peek_i64(args + EXPERT_COLUMNS.skip)
        pieces = (rows + LANES - 1) // LANES
        todo, current, count = pieces * peek_i64(groups), -1, 0
        while True:
            item = atomic_add(peek_i64(args + EXPERT_COLUMNS.counter), 1)
            if item >= todo:
                break
            index, first = item // pieces, item % pieces * LANES
            if index != current:
                current = index
                count = gather_pairs(EXPERT_COLUMNS, args, scratch, groups, peek_i64(args + EXPERT_COLUMNS.experts), index)
            expert = peek_i64(groups + GROUPS_HEAD + 8 * index)
            w = peek_i64(peek_i64(args + EXPERT_COLUMNS.weight) + 8 * expert) + itemsize * peek_i64(args + EXPERT_COLUMNS.first)
            for i in range(count):
                x = peek_i64(args + EXPERT_COLUMNS.x) + peek_i64(scratch + X_OFFSETS + 8 * i)
                to = peek_i64(args + EXPERT_COLUMNS.out) + peek_i64(scratch + OUT_OFFSETS + 8 * i)
                factor = peek_f32(scratch + FACTORS + 4 * i)
                if skip == 1 and first + LANES <= rows:
                    total = splat_f32(0.0)
                    for c in range(width):
                        total = fma(splat_f32(peek_f32(x + 4 * c)), load(w + c * row_bytes + itemsize * first), total)
                    shift = load_f32(bias + 4 * (expert * rows + first)) if bias else splat_f32(0.0)
                    store_f32(to + 4 * first, total * splat_f32(factor) + shift)
                else:
                    for row in range(first, min(first + LANES, rows)):
                        one = 0.0
                        for c in range(width):
                            one = fma1(peek_f32(x + 4 * c), peek(w + c * row_bytes + itemsize * skip * row), one)
                        more = peek_f32(bias + 4 * (expert * rows + row)) if bias else 0.0
                        poke_f32(to + 4 * row, one * factor + more)

    return kernel


columns_f32 = make_columns(load_f32, peek_f32, 4)
columns_f16 = make_columns(load_f16, peek_f16, 2)
columns_bf16 = make_columns(load_bf16, peek_bf16, 2)
rows_f32, rows_f16, rows_bf16 = (
    make_rows(emit_f32, peek_f32, 4),
    make_rows(emit_f16, peek_f16, 2),
    make_rows(emit_bf16, peek_bf16, 2),
)
rows_generic = make_rows(emit_f32, peek_f32, 4, dequantise=True)
