"""Causal grouped attention over keys and values, block by block with a running maximum (flash attention).

Dao et al., https://arxiv.org/abs/2205.14135. Blocks lie at fixed positions and sums run in a fixed order, so that a token's
result does not depend on what else is in the step. A block is a page, found by the table of the token's row; layout: stored.py.
"""

from typing import Any

from lacewing.backends.cpu.arguments import ATTENTION, SCRATCH_BYTES, STATE
from lacewing.backends.cpu.kernels.attention.steps import make_scores, make_values
from lacewing.backends.cpu.kernels.attention.stored import BLOCK, F16_STORED, F32_STORED, Q8_STORED, Stored
from lacewing.backends.cpu.kernels.quants.activations import quantise
from lacewing.backends.cpu.kernels.simd.functions import exp, tanh
from lacewing.backends.cpu.kernels.simd.instructions import (
    fma,
    load_f32,
    mask_outside,
    max_f32,
    peek_f32,
    peek_i32,
    peek_i64,
    poke_f32,
    splat_f32,
    store_f32,
    sum_f32,
    top_f32,
)
from lacewing.backends.cpu.kernels.simd.registers import LANES, VECTOR_BYTES, inline
from lacewing.backends.cpu.kernels.simd.threads import atomic_add

MAX_QUERIES = 32  # (token, head) pairs that one piece of work holds
VALUE_QUERIES = 4
VALUE_COLUMNS = 4 if LANES == 16 else 2  # registers of columns
LOWEST = -1e30


def make_block_scores(stored: Stored) -> Any:
    """`scores` of all queries with one block of positions."""
    tiles = [make_scores(*shape, stored) for shape in ((8, 1), (4, 2), (4, 1), (1, 4), (1, 1))]
    many, few_long, few, one_long, one = tiles
    bytes_of = stored.row_bytes

    @inline
    def run_scores(wide, blocks, short, q, width, keys, out, positions, values, value_bytes):
        """One row of tiles; the last ones of a block are short."""
        j, row_bytes, nbytes = 0, bytes_of(width), LANES * value_bytes // width
        while j + LANES * (blocks - 1) < positions:
            wide(q, 4 * width, width, keys + row_bytes * j, out + 4 * j, values + value_bytes * j, blocks * nbytes)
            j += LANES * blocks
        while j < positions:
            short(q, 4 * width, width, keys + row_bytes * j, out + 4 * j, values + value_bytes * j, nbytes)
            j += LANES

    @inline
    def block_scores(q, queries, width, keys, out, positions, values, value_bytes):
        """Dot products of all queries with `positions` positions, and with what is behind them up to a whole register.

        Meanwhile the first queries ask for the block's values, `value_bytes` a position; 0: for none.
        """
        done, row_bytes, nbytes = queries - queries % 8, bytes_of(width), LANES * value_bytes // width
        for j in range(0, positions, LANES):
            group, to, ahead = keys + row_bytes * j, out + 4 * j, values + value_bytes * j
            for i in range(0, done, 8):
                many(q + 4 * width * i, 4 * width, width, group, to + 4 * BLOCK * i, ahead, 0 if i else nbytes)
        if done:
            value_bytes = 0
        if queries - done >= 4:
            at = out + 4 * BLOCK * done
            run_scores(few_long, 2, few, q + 4 * width * done, width, keys, at, positions, values, value_bytes)
            done, value_bytes = done + 4, 0
        for i in range(done, queries):
            at = out + 4 * BLOCK * i
            run_scores(one_long, 4, one, q + 4 * width * i, width, keys, at, positions, values, 0 if i else value_bytes)

    return block_scores


def make_blocks(stored: Stored) -> Any:
    """`scores` and `values` of all queries with one block of positions."""
    block_scores, element, bytes_of = make_block_scores(stored), stored.element, stored.row_bytes
    values_many, values_one = make_values(VALUE_QUERIES, VALUE_COLUMNS, stored), make_values(1, VALUE_COLUMNS, stored)
    values_narrow = make_values(1, 1, stored)

    @inline
    def block_values(acc, queries, width, v, p, positions):
        """acc (queries, width) += p (queries, BLOCK) @ v (positions, width)."""
        chunk, row_bytes = LANES * VALUE_COLUMNS, bytes_of(width)
        wide = width - width % chunk
        whole = width - width % LANES
        done = 0
        while done + VALUE_QUERIES <= queries:
            for c in range(0, wide, chunk):
                values_many(acc + 4 * (width * done + c), 4 * width, v, c, row_bytes, p + 4 * BLOCK * done, positions)
            done += VALUE_QUERIES
        for i in range(done, queries):
            for c in range(0, wide, chunk):
                values_one(acc + 4 * (width * i + c), 4 * width, v, c, row_bytes, p + 4 * BLOCK * i, positions)
        for i in range(queries):
            for c in range(wide, whole, LANES):
                values_narrow(acc + 4 * (width * i + c), 4 * width, v, c, row_bytes, p + 4 * BLOCK * i, positions)
            for c in range(whole, width):
                total = peek_f32(acc + 4 * (width * i + c))
                for j in range(positions):
                    total += peek_f32(p + 4 * (BLOCK * i + j)) * element(v + row_bytes * j, c)
                poke_f32(acc + 4 * (width * i + c), total)

    return block_scores, block_values


@inline
def soften(p, first, low, high, softcap, most, total, acc, width):
    """Scores of one query in a block to weights; its maximum, sum and accumulator are brought to the new maximum."""
    top = splat_f32(LOWEST)
    for i in range(0, BLOCK, LANES):
        s = load_f32(p + 4 * i)
        if softcap > 0:
            s = splat_f32(softcap) * tanh(s / splat_f32(softcap))
        s = mask_outside(s, first + i, low, high)
        store_f32(p + 4 * i, s)
        top = max_f32(top, s)
    old = peek_f32(most)
    new = max(old, top_f32(top))
    sums = splat_f32(0.0)
    for i in range(0, BLOCK, LANES):
        weight = exp(load_f32(p + 4 * i) - splat_f32(new))
        store_f32(p + 4 * i, weight)
        sums = sums + weight
    if new > old:
        poke_f32(most, new)
        shrink = exp(splat_f32(old - new))
        store_f32(total, fma(load_f32(total), shrink, sums))
        rescale(acc, width, shrink)
    else:
        store_f32(total, load_f32(total) + sums)


@inline
def rescale(acc, width, factor):
    whole = width - width % LANES
    for c in range(0, whole, LANES):
        store_f32(acc + 4 * c, load_f32(acc + 4 * c) * factor)
    for c in range(whole, width):
        poke_f32(acc + 4 * c, peek_f32(acc + 4 * c) * top_f32(factor))


@inline
def first_seen(position, window, chunk):
    """The first position that attention at `position` reaches."""
    return max(0, position - window + 1, position // chunk * chunk)


@inline
def gather_queries(args, q, acc, most, total, token, count, first_head, group):
    """Scaled queries in a row, and empty accumulators."""
    width, value_width = peek_i64(args + ATTENTION.key_width), peek_i64(args + ATTENTION.value_width)
    scale = peek_f32(args + ATTENTION.scale)
    for i in range(count * group):
        source = (
            peek_i64(args + ATTENTION.q)
            + (token + i // group) * peek_i64(args + ATTENTION.q_stride)
            + 4 * width * (first_head + i % group)
        )
        to, sums = q + 4 * width * i, acc + 4 * value_width * i
        for c in range(0, width - width % LANES, LANES):
            store_f32(to + 4 * c, load_f32(source + 4 * c) * splat_f32(scale))
        for c in range(width - width % LANES, width):
            poke_f32(to + 4 * c, peek_f32(source + 4 * c) * scale)
        for c in range(0, value_width - value_width % LANES, LANES):
            store_f32(sums + 4 * c, splat_f32(0.0))
        for c in range(value_width - value_width % LANES, value_width):
            poke_f32(sums + 4 * c, 0.0)
        poke_f32(most + 4 * i, LOWEST)
        store_f32(total + VECTOR_BYTES * i, splat_f32(0.0))


@inline
def put_results(args, acc, most, total, token, count, first_head, group):
    """acc / total to the output, quantised for the next linear where asked."""
    width = peek_i64(args + ATTENTION.value_width)
    quantised, stride = peek_i64(args + ATTENTION.bytes), peek_i64(args + ATTENTION.bytes_stride)
    row_width, sinks = width * peek_i64(args + ATTENTION.heads), peek_i64(args + ATTENTION.sinks)
    for i in range(count * group):
        t, column = token + i // group, width * (first_head + i % group)
        out = peek_i64(args + ATTENTION.out) + t * peek_i64(args + ATTENTION.out_stride) + 4 * column
        divisor, factor = sum_f32(load_f32(total + VECTOR_BYTES * i)), 1.0
        if sinks:  # one more score, without a value
            sink, top = peek_f32(sinks + 4 * (first_head + i % group)), peek_f32(most + 4 * i)
            highest = max(sink, top)
            factor = top_f32(exp(splat_f32(top - highest)))
            divisor = divisor * factor + top_f32(exp(splat_f32(sink - highest)))
        sums, whole = acc + 4 * width * i, width - width % LANES
        for c in range(0, whole, LANES):
            store_f32(out + 4 * c, load_f32(sums + 4 * c) * splat_f32(factor) / splat_f32(divisor))
        for c in range(whole, width):
            poke_f32(out + 4 * c, peek_f32(sums + 4 * c) * factor / divisor)
        if quantised:
            quantise(out, quantised + t * stride, row_width, column, width)


def make_attend(stored: Stored) -> Any:
    """`attend`: one piece of work over a KV cache of one type."""
    block_scores, block_values = make_blocks(stored)
    row_bytes, key_to_value = stored.row_bytes, stored.key_to_value

    @inline
    def values_from_keys(keys, width, value_width, positions, out):
        """Of a page of latent attention, position by position."""
        for j in range(positions):
            group = keys + row_bytes(width) * (j // LANES * LANES)
            key_to_value(group, width, j % LANES, value_width, out + row_bytes(value_width) * j)

    @inline
    def attend(args, state, scratch, token, count, first_head, group):
        """`count` tokens of one row, `group` heads that share a key head."""
        width, value_width = peek_i64(args + ATTENTION.key_width), peek_i64(args + ATTENTION.value_width)
        queries = count * group
        q, p = scratch, scratch + 4 * MAX_QUERIES * width
        acc, most = p + 4 * MAX_QUERIES * BLOCK, p + 4 * MAX_QUERIES * (BLOCK + value_width)
        total = most + 4 * MAX_QUERIES
        gather_queries(args, q, acc, most, total, token, count, first_head, group)
        positions, page_bytes = peek_i64(state + STATE.positions), peek_i64(args + ATTENTION.page_bytes)
        head = first_head // (peek_i64(args + ATTENTION.heads) // peek_i64(args + ATTENTION.key_heads))
        keys = peek_i64(args + ATTENTION.keys) + head * BLOCK * row_bytes(width)
        values = peek_i64(args + ATTENTION.values) + head * BLOCK * row_bytes(value_width)
        latent = peek_i64(args + ATTENTION.values) == 0
        row = peek_i32(peek_i64(state + STATE.rows) + 4 * token)
        table = peek_i64(args + ATTENTION.table) + row * peek_i64(args + ATTENTION.table_stride)
        window, softcap = peek_i64(args + ATTENTION.window), peek_f32(args + ATTENTION.softcap)
        chunk = peek_i64(args + ATTENTION.chunk)
        last = peek_i32(positions + 4 * (token + count - 1))
        lowest = first_seen(peek_i32(positions + 4 * token), window, chunk)
        for first in range(lowest // BLOCK * BLOCK, last + 1, BLOCK):
            seen, page = min(BLOCK, last + 1 - first), peek_i32(table + 4 * (first // BLOCK)) * page_bytes
            value_bytes = 0 if latent else row_bytes(value_width)
            block_scores(q, queries, width, keys + page, p, seen, values + page, value_bytes)
            for i in range(queries):
                high = peek_i32(positions + 4 * (token + i // group))
                at = acc + 4 * value_width * i
                low, sums = first_seen(high, window, chunk), total + VECTOR_BYTES * i
                soften(p + 4 * BLOCK * i, first, low, high, softcap, most + 4 * i, sums, at, value_width)
            block = values + page
            if latent:
                block = total + VECTOR_BYTES * MAX_QUERIES
                values_from_keys(keys + page, width, value_width, seen, block)
            block_values(acc, queries, value_width, block, p, seen)
        put_results(args, acc, most, total, token, count, first_head, group)

    return attend


@inline
def same_row(rows, token, most, tokens):
    """How many tokens from `token` on, up to `most`, are of its row."""
    count = 1
    while count < most and token + count < tokens and peek_i32(rows + 4 * (token + count)) == peek_i32(rows + 4 * token):
        count += 1
    return count


def make_attention(stored: Stored) -> Any:
    """`kernel`: shares the pieces of work among the threads."""
    attend = make_attend(stored)

    def kernel(args, state, thread, threads):
        """Pieces of work: a key head with a run of tokens of one row. For one token a head each, unless the key heads go round
        evenly."""
        heads = peek_i64(args + ATTENTION.heads)
        tokens, rows = peek_i64(state + STATE.tokens), peek_i64(state + STATE.rows)
        scratch = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
        group = peek_i64(args + ATTENTION.group)  # divides H / K, at most MAX_QUERIES
        if tokens == 1 and heads // group % threads and peek_i64(args + ATTENTION.values):  # copying latent values pays for many
            group = 1
        run, parts = max(1, MAX_QUERIES // group), heads // group
        piece, token, count = 0, 0, same_row(rows, 0, run, tokens)
        while True:
            index = atomic_add(peek_i64(args + ATTENTION.counter), 1)
            while piece < index // parts and token + count < tokens:  # pieces are counted on, as indices only grow
                piece, token = piece + 1, token + count
                count = same_row(rows, token, run, tokens)
            if piece < index // parts:
                break
            attend(args, state, scratch, token, count, index % parts * group, group)

    return kernel


attention_f16, attention_f32 = make_attention(F16_STORED), make_attention(F32_STORED)
attention_q8_0 = make_attention(Q8_STORED)
