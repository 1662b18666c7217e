"""Causal grouped attention over keys and values, block by block with a running maximum (flash attention).

Dao et al., https://arxiv.org/abs/2205.14135. Blocks lie at fixed positions and sums run in a fixed order, so that a token's
result does not depend on what else is in the step. Layout of keys and values: heads.py.
"""

from typing import Any

from lacewing.backends.cpu.arguments import ATTENTION, SCRATCH_BYTES, STATE
from lacewing.backends.cpu.kernels.attention.steps import BLOCK, make_scores, make_values
from lacewing.backends.cpu.kernels.quants.activations import quantise
from lacewing.backends.cpu.kernels.simd.functions import exp, tanh
from lacewing.backends.cpu.kernels.simd.instructions import (
    fma,
    load_f32,
    mask_outside,
    max_f32,
    peek_f16,
    peek_f32,
    peek_i32,
    peek_i64,
    poke_f16,
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


def make_blocks(half: bool) -> Any:
    """`scores` and `values` of all queries with one block of positions."""
    tiles = [make_scores(*shape, half) for shape in ((8, 1), (4, 2), (4, 1), (1, 4), (1, 1))]
    many, few_long, few, one_long, one = tiles
    values_many, values_one = make_values(VALUE_QUERIES, VALUE_COLUMNS, half), make_values(1, VALUE_COLUMNS, half)
    values_narrow, itemsize, peek = make_values(1, 1, half), 2 if half else 4, peek_f16 if half else peek_f32

    @inline
    def run_scores(wide, blocks, short, q, width, keys, out, positions):
        """One row of tiles; the last ones of a block are short."""
        j = 0
        while j + LANES * (blocks - 1) < positions:
            wide(q, 4 * width, width, keys + itemsize * width * j, out + 4 * j)
            j += LANES * blocks
        while j < positions:
            short(q, 4 * width, width, keys + itemsize * width * j, out + 4 * j)
            j += LANES

    @inline
    def block_scores(q, queries, width, keys, out, positions):
        """Dot products of all queries with `positions` positions, and with what is behind them up to a whole register."""
        done = queries - queries % 8
        for j in range(0, positions, LANES):
            for i in range(0, done, 8):
                many(q + 4 * width * i, 4 * width, width, keys + itemsize * width * j, out + 4 * (BLOCK * i + j))
        if queries - done >= 4:
            run_scores(few_long, 2, few, q + 4 * width * done, width, keys, out + 4 * BLOCK * done, positions)
            done += 4
        for i in range(done, queries):
            run_scores(one_long, 4, one, q + 4 * width * i, width, keys, out + 4 * BLOCK * i, positions)

    @inline
    def block_values(acc, queries, width, v, p, positions):
        """acc (queries, width) += p (queries, BLOCK) @ v (positions, width)."""
        chunk = LANES * VALUE_COLUMNS
        wide = width - width % chunk
        whole = width - width % LANES
        done = 0
        while done + VALUE_QUERIES <= queries:
            for c in range(0, wide, chunk):
                values_many(
                    acc + 4 * (width * done + c), 4 * width, v + itemsize * c, itemsize * width, p + 4 * BLOCK * done, positions
                )
            done += VALUE_QUERIES
        for i in range(done, queries):
            for c in range(0, wide, chunk):
                values_one(acc + 4 * (width * i + c), 4 * width, v + itemsize * c, itemsize * width, p + 4 * BLOCK * i, positions)
        for i in range(queries):
            for c in range(wide, whole, LANES):
                values_narrow(
                    acc + 4 * (width * i + c), 4 * width, v + itemsize * c, itemsize * width, p + 4 * BLOCK * i, positions
                )
            for c in range(whole, width):
                total = peek_f32(acc + 4 * (width * i + c))
                for j in range(positions):
                    total += peek_f32(p + 4 * (BLOCK * i + j)) * peek(v + itemsize * (width * j + c))
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
        for c in range(width):
            poke_f32(q + 4 * (width * i + c), peek_f32(source + 4 * c) * scale)
        for c in range(value_width):
            poke_f32(acc + 4 * (value_width * i + c), 0.0)
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
        for c in range(width):
            poke_f32(out + 4 * c, peek_f32(acc + 4 * (width * i + c)) * factor / divisor)
        if quantised:
            quantise(out, quantised + t * stride, row_width, column, width)


def make_values_from_keys(half: bool) -> Any:
    """`copy`: the first columns of LANES-wise keys, position by position, for latent attention, whose values they are."""
    peek, poke, itemsize = (peek_f16, poke_f16, 2) if half else (peek_f32, poke_f32, 4)

    @inline
    def copy(keys, width, value_width, positions, out):
        for first in range(0, positions, LANES):
            source, end = keys + itemsize * first * width, min(LANES, positions - first)
            for j in range(end):
                to = out + itemsize * (first + j) * value_width
                for c in range(value_width):
                    poke(to + itemsize * c, peek(source + itemsize * (c * LANES + j)))

    return copy


def make_attend(half: bool) -> Any:
    """`attend`: one piece of work over float16 or float32 keys and values."""
    block_scores, block_values = make_blocks(half)
    itemsize = 2 if half else 4
    values_from_keys = make_values_from_keys(half)

    @inline
    def attend(args, state, scratch, token, count, first_head, group):
        """`count` tokens of one slot, `group` heads that share a key head."""
        width, value_width = peek_i64(args + ATTENTION.key_width), peek_i64(args + ATTENTION.value_width)
        queries = count * group
        q, p = scratch, scratch + 4 * MAX_QUERIES * width
        acc, most = p + 4 * MAX_QUERIES * BLOCK, p + 4 * MAX_QUERIES * (BLOCK + value_width)
        total = most + 4 * MAX_QUERIES
        gather_queries(args, q, acc, most, total, token, count, first_head, group)
        context, positions = peek_i64(state + STATE.context), peek_i64(state + STATE.positions)
        key_heads, slot = peek_i64(args + ATTENTION.key_heads), peek_i32(peek_i64(state + STATE.slots) + 4 * token)
        head = slot * key_heads + first_head // (peek_i64(args + ATTENTION.heads) // key_heads)
        keys = peek_i64(args + ATTENTION.keys) + itemsize * head * ((context + LANES - 1) // LANES) * LANES * width
        values = peek_i64(args + ATTENTION.values) + itemsize * head * context * value_width
        latent = peek_i64(args + ATTENTION.values) == 0
        window, softcap = peek_i64(args + ATTENTION.window), peek_f32(args + ATTENTION.softcap)
        chunk = peek_i64(args + ATTENTION.chunk)
        last = peek_i32(positions + 4 * (token + count - 1))
        lowest = first_seen(peek_i32(positions + 4 * token), window, chunk)
        for first in range(lowest // BLOCK * BLOCK, last + 1, BLOCK):
            seen = min(BLOCK, last + 1 - first)
            block_scores(q, queries, width, keys + itemsize * first * width, p, seen)
            for i in range(queries):
                high = peek_i32(positions + 4 * (token + i // group))
                at = acc + 4 * value_width * i
                low, sums = first_seen(high, window, chunk), total + VECTOR_BYTES * i
                soften(p + 4 * BLOCK * i, first, low, high, softcap, most + 4 * i, sums, at, value_width)
            block = values + itemsize * first * value_width
            if latent:
                block = total + VECTOR_BYTES * MAX_QUERIES
                values_from_keys(keys + itemsize * first * width, width, value_width, seen, block)
            block_values(acc, queries, value_width, block, p, seen)
        put_results(args, acc, most, total, token, count, first_head, group)

    return attend


def make_attention(half: bool) -> Any:
    """`kernel`: shares the pieces of work among the threads."""
    attend = make_attend(half)

    def kernel(args, state, thread, threads):
        """Pieces of work: a key head with a run of tokens. For one token a head each, unless the key heads go round evenly."""
        heads = peek_i64(args + ATTENTION.heads)
        tokens, slots = peek_i64(state + STATE.tokens), peek_i64(state + STATE.slots)
        scratch = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
        group = peek_i64(args + ATTENTION.group)  # divides H / K, at most MAX_QUERIES
        if tokens == 1 and heads // group % threads and peek_i64(args + ATTENTION.values):  # copying latent values pays for many
            group = 1
        run = 1 if tokens == 1 else max(1, MAX_QUERIES // group)
        parts = heads // group
        todo = (tokens + run - 1) // run * parts
        while True:
            index = atomic_add(peek_i64(args + ATTENTION.counter), 1)
            if index >= todo:
                break
            token, end = index // parts * run, min(tokens, (index // parts + 1) * run)
            while token < end:  # a run may touch several slots
                count = 1
                while token + count < end and peek_i32(slots + 4 * (token + count)) == peek_i32(slots + 4 * token):
                    count += 1
                attend(args, state, scratch, token, count, index % parts * group, group)
                token += count

    return kernel


attention_f16, attention_f32 = make_attention(half=True), make_attention(half=False)
