"""The lightning indexer: scores of all positions by an index, and which of them attention is to see. Semantics: program/ops.py,
SelectKeys.

Few tokens: `score` leaves their scores in rows, threads sharing the positions, and `select` chooses. Many: `score` does nothing,
and each thread scores and chooses for one token after another in a row of its own.
"""

from typing import Any

from lacewing.backends.cpu.arguments import SCRATCH_BYTES, SELECT, STATE
from lacewing.backends.cpu.kernels.attention.attention import make_block_scores
from lacewing.backends.cpu.kernels.attention.stored import BLOCK, F16_STORED, F32_STORED, Q8_STORED, Stored
from lacewing.backends.cpu.kernels.simd.instructions import (
    fma,
    load_f32,
    peek_f32,
    peek_i32,
    peek_i64,
    poke_i32,
    select_lt,
    splat_f32,
    store_f32,
)
from lacewing.backends.cpu.kernels.simd.registers import LANES, inline
from lacewing.backends.cpu.kernels.simd.threads import atomic_add

RUN = 8  # blocks that a thread scores at a time
FIRST, LAST = 11, 10  # bits of a key that are looked at first, and second, and last


@inline
def seen_by(state, token):
    """Positions that a token sees."""
    return peek_i32(peek_i64(state + STATE.positions) + 4 * token) + 1


@inline
def sort_key(p):
    """A float32 as an integer from 0 on, in the order of the numbers: -0 is 0, and NaN the largest."""
    bits = peek_i32(p) & 0xFFFFFFFF
    if bits & 0x7FFFFFFF > 0x7F800000:
        return 0xFFFFFFFF
    if bits == 0x80000000:
        return 0x80000000
    return bits ^ (0xFFFFFFFF if bits >> 31 else 0x80000000)


@inline
def find_bin(counts, bins, wanted):
    """The bin from the end on with which `wanted` are reached, times 2^32, and how many of it are wanted."""
    left, index = wanted, bins - 1
    while left > peek_i32(counts + 4 * index):
        left -= peek_i32(counts + 4 * index)
        index -= 1
    return (index << 32) | left


@inline
def count_keys(keys, count, counts, bits, shift, prefix):
    """How many of the keys that begin with `prefix` have each value in `bits` bits from `shift` on; prefix -1: of all."""
    for each in range(1 << bits):
        poke_i32(counts + 4 * each, 0)
    for s in range(count):
        key = peek_i32(keys + 4 * s) & 0xFFFFFFFF
        if prefix < 0 or key >> (bits + shift) == prefix:
            at = counts + 4 * ((key >> shift) & ((1 << bits) - 1))
            poke_i32(at, peek_i32(at) + 1)


@inline
def choose(scores, count, wanted, chosen, counts):
    """The `wanted` of `count` positions with the largest scores, ascending; scores become integers."""
    for s in range(count):
        poke_i32(scores + 4 * s, sort_key(scores + 4 * s))
    count_keys(scores, count, counts, FIRST, FIRST + LAST, -1)
    found = find_bin(counts, 1 << FIRST, wanted)
    prefix, left = found >> 32, found & 0xFFFFFFFF
    count_keys(scores, count, counts, FIRST, LAST, prefix)
    found = find_bin(counts, 1 << FIRST, left)
    prefix, left = (prefix << FIRST) | (found >> 32), found & 0xFFFFFFFF
    count_keys(scores, count, counts, LAST, 0, prefix)
    found = find_bin(counts, 1 << LAST, left)
    threshold, left = (prefix << LAST) | (found >> 32), found & 0xFFFFFFFF
    at = chosen
    for s in range(count):
        key = peek_i32(scores + 4 * s) & 0xFFFFFFFF
        if key > threshold or (key == threshold and left > 0):
            if key == threshold:
                left -= 1
            poke_i32(at, s)
            at += 4


def make_score_blocks(stored: Stored) -> Any:
    """`score_blocks` over an index of one type."""
    block_scores = make_block_scores(stored)

    @inline
    def score_blocks(args, state, token, first, end, out, p):
        """Scores of a token, of positions `first` (of a block) to `end`; out: of position 0."""
        heads, width = peek_i64(args + SELECT.heads), peek_i64(args + SELECT.width)
        q = peek_i64(args + SELECT.q) + token * peek_i64(args + SELECT.q_stride)
        weights = peek_i64(args + SELECT.weights) + token * peek_i64(args + SELECT.weights_stride)
        row = peek_i32(peek_i64(state + STATE.rows) + 4 * token)
        table = peek_i64(args + SELECT.table) + row * peek_i64(args + SELECT.table_stride)
        zero = splat_f32(0.0)
        for start in range(first, end, BLOCK):
            page = peek_i32(table + 4 * (start // BLOCK)) * peek_i64(args + SELECT.page_bytes)
            positions = min(BLOCK, end - start)
            block_scores(q, heads, width, peek_i64(args + SELECT.keys) + page, p, positions, 0, 0)
            for j in range(0, positions, LANES):
                total = zero
                for h in range(heads):
                    x = load_f32(p + 4 * (BLOCK * h + j))
                    x = select_lt(x, zero, zero, x)  # unlike a maximum, a choice keeps NaN
                    total = fma(splat_f32(peek_f32(weights + 4 * h)), x, total)
                store_f32(out + 4 * (start + j), total)

    return score_blocks


def make_selection(stored: Stored) -> Any:
    """`score` and `select` over an index of one type."""
    score_blocks = make_score_blocks(stored)

    def score(args, state, thread, threads):
        """Pieces of work: a run of blocks of a token."""
        tokens, most = peek_i64(state + STATE.tokens), peek_i64(args + SELECT.most)
        if tokens > peek_i64(args + SELECT.rows):
            return
        scratch = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
        piece, token = 0, 0
        while True:
            index = atomic_add(peek_i64(args + SELECT.counter), 1)
            while token < tokens:  # pieces are counted on, as indices only grow
                seen = seen_by(state, token)
                pieces = (seen + RUN * BLOCK - 1) // (RUN * BLOCK) if seen > most else 0
                if index < piece + pieces:
                    break
                piece, token = piece + pieces, token + 1
            if token >= tokens:
                break
            first = (index - piece) * RUN * BLOCK
            out = peek_i64(args + SELECT.scores) + token * peek_i64(args + SELECT.row_bytes)
            score_blocks(args, state, token, first, min(first + RUN * BLOCK, seen_by(state, token)), out, scratch)

    def select(args, state, thread, threads):
        """Pieces of work: a token."""
        tokens, most = peek_i64(state + STATE.tokens), peek_i64(args + SELECT.most)
        scratch, many = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES, tokens > peek_i64(args + SELECT.rows)
        while True:
            token = atomic_add(peek_i64(args + SELECT.counter), 1)
            if token >= tokens:
                break
            seen = seen_by(state, token)
            if seen <= most:
                continue
            scores = peek_i64(args + SELECT.scores) + (thread if many else token) * peek_i64(args + SELECT.row_bytes)
            if many:
                score_blocks(args, state, token, 0, seen, scores, scratch)
            chosen = peek_i64(args + SELECT.chosen) + token * peek_i64(args + SELECT.chosen_stride)
            choose(scores, seen, most, chosen, scratch)

    return score, select


score_f16, select_f16 = make_selection(F16_STORED)
score_f32, select_f32 = make_selection(F32_STORED)
score_q8_0, select_q8_0 = make_selection(Q8_STORED)
