"""The largest logit of each row, and the maxima of groups of them, while the rows are in the caches of those who made them.

A row is cut into pieces of LARGEST_PIECE registers. Lane l of a piece's registers is a group: it is every LANES-th logit of the
piece. So a register holds the maxima of LANES groups, and nothing is folded across lanes but once a piece.
"""

from lacewing.backends.cpu.arguments import LARGEST, LARGEST_PART, LARGEST_PIECE, STATE
from lacewing.backends.cpu.kernels.simd.instructions import (
    load_f32,
    mask_outside,
    peek_f32,
    peek_i64,
    poke_f32,
    poke_i64,
    select_lt,
    splat_f32,
    splat_i32,
    store_f32,
    sum_i32,
    top_f32,
    unordered,
)
from lacewing.backends.cpu.kernels.simd.registers import LANES, inline
from lacewing.backends.cpu.kernels.simd.threads import atomic_add

PIECE = LARGEST_PIECE * LANES  # logits
LEAST = float("-inf")
NO_NUMBER = float("nan")


def largest(args, state, thread, threads):
    """Of each row of x (R, V): its largest logit's id, the lowest among equals, or -1 where one is NaN or the largest is infinite.

    Each thread looks at a part of the vocabulary; the last one that is done puts the parts together.
    """
    x, width, rows = peek_i64(args + LARGEST.x), peek_i64(args + LARGEST.width), peek_i64(state + STATE.outputs)
    parts, part_bytes = peek_i64(args + LARGEST.parts), peek_i64(args + LARGEST.part_bytes)
    pieces = (width + PIECE - 1) // PIECE
    first, end = thread * pieces // threads, (thread + 1) * pieces // threads
    for row in range(rows):
        tops = peek_i64(args + LARGEST.tops) + row * peek_i64(args + LARGEST.tops_bytes)
        find(x + 4 * width * row, width, first, end, tops, parts + thread * part_bytes + LARGEST_PART * row)
    if atomic_add(peek_i64(args + LARGEST.counter), 1) + 1 == threads:
        for row in range(rows):
            poke_i64(peek_i64(args + LARGEST.ids) + 8 * row, merged(parts + LARGEST_PART * row, part_bytes, threads))


@inline
def larger(value, top):
    """`top` where the value is NaN."""
    return select_lt(top, value, value, top)


@inline
def find(row, width, first, end, tops, to):
    """The largest of pieces `first` to `end` of a row, NaN if one is, and its id."""
    best, at, broken = LEAST, first, splat_i32(0)
    for piece in range(first, end):
        a = b = c = d = splat_f32(LEAST)  # each maximum waits for the one before
        last = min((piece + 1) * PIECE, width)
        whole = piece * PIECE + (last - piece * PIECE) // (4 * LANES) * (4 * LANES)
        for i in range(piece * PIECE, whole, 4 * LANES):
            v, w = load_f32(row + 4 * i), load_f32(row + 4 * (i + LANES))
            x, y = load_f32(row + 4 * (i + 2 * LANES)), load_f32(row + 4 * (i + 3 * LANES))
            broken = broken | unordered(v, w) | unordered(x, y)
            a, b, c, d = larger(v, a), larger(w, b), larger(x, c), larger(y, d)
        for i in range(whole, last, LANES):
            v = mask_outside(load_f32(row + 4 * i), i, 0, width - 1)
            broken = broken | unordered(v, v)
            a = larger(v, a)
        top = larger(larger(a, b), larger(c, d))
        store_f32(tops + 4 * LANES * piece, top)
        one = top_f32(top)
        if one > best:
            best, at = one, piece
    poke_f32(to, NO_NUMBER if sum_i32(broken) else best)
    poke_i64(to + 8, place_of(row, at * PIECE, min((at + 1) * PIECE, width), best))


@inline
def place_of(row, first, end, best):
    """The first logit of a piece that equals its largest."""
    for i in range(first, end, LANES):
        if top_f32(mask_outside(load_f32(row + 4 * i), i, 0, end - 1)) >= best:
            for j in range(i, min(i + LANES, end)):
                if peek_f32(row + 4 * j) >= best:
                    return j
    return first


@inline
def merged(parts, part_bytes, threads):
    """The id of the largest of all threads' parts, which are in the order of ids."""
    best, found, sound = LEAST, -1, True
    for thread in range(threads):
        value = peek_f32(parts + thread * part_bytes)
        sound = sound and value == value
        if value > best:
            best, found = value, peek_i64(parts + thread * part_bytes + 8)
    return found if sound and best - best == 0 else -1
