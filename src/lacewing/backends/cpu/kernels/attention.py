"""Causal grouped attention over float16 keys and values, block by block with a running maximum (flash attention).

Dao et al., https://arxiv.org/abs/2205.14135. Blocks lie at fixed positions and sums run in a fixed order, so that a token's
result does not depend on what else is in the step. Layout of keys and values: heads.py.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import signature
from numba.extending import intrinsic

from lacewing.backends.cpu.kernels.activations import quantise
from lacewing.backends.cpu.kernels.dot import emit_fma, emit_load
from lacewing.backends.cpu.kernels.functions import exp, tanh
from lacewing.backends.cpu.kernels.simd import (
    F32,
    F32V,
    LANES,
    VECTOR_BYTES,
    F16,
    atomic_add,
    f32v,
    fma,
    inline,
    load_f16,
    load_f32,
    mask_outside,
    max_f32,
    peek_f16,
    peek_f32,
    peek_i32,
    peek_i64,
    poke_f32,
    splat,
    splat_f32,
    store_f32,
    sum_f32,
    top_f32,
)
from lacewing.backends.cpu.kernels.state import (
    SCRATCH_BYTES,
    STATE_CONTEXT,
    STATE_POSITIONS,
    STATE_SCRATCH,
    STATE_SLOTS,
    STATE_TOKENS,
)

BLOCK = 128  # positions between two corrections of the running maximum
MAX_QUERIES = 32  # (token, head) pairs that one piece of work holds
SCORE_QUERIES = 8
VALUE_QUERIES = 4
VALUE_COLUMNS = 4 if LANES == 16 else 2  # registers of columns
LOWEST = -1e30

(
    ATT_COUNTER, ATT_Q, ATT_Q_STRIDE, ATT_OUT, ATT_OUT_STRIDE, ATT_HEADS, ATT_KEY_HEADS, ATT_KEY_WIDTH, ATT_VALUE_WIDTH, ATT_KEYS,
    ATT_VALUES, ATT_SCALE, ATT_SOFTCAP, ATT_WINDOW, ATT_QUANTISED, ATT_QUANTISED_STRIDE, ATT_GROUP,
) = range(0, 136, 8)  # fmt: skip


@intrinsic
def score_step(typingctx, acc, key, q, stride):
    """acc[i] += key * q[i], for the queries `stride` bytes apart."""

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        acc, key, q, stride = values
        made = acc
        for i in range(sig.args[0].count):
            x = splat(b, emit_load(b, b.add(q, b.mul(stride, ir.Constant(stride.type, i))), 0, F32))
            made = b.insert_value(made, emit_fma(b, key, x, b.extract_value(acc, i)), i)
        return made

    return signature(acc, acc, f32v, types.int64, types.int64), codegen


def make_value_step(queries: int, columns: int) -> Any:
    """`step(acc, value, p, stride)`: acc[i * columns + c] += p[i] * value[c]."""

    @intrinsic
    def step(typingctx, acc, value, p, stride):
        def codegen(context: Any, b: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
            acc, value, p, stride = values
            half = ir.VectorType(F16, LANES)
            rows = [b.fpext(emit_load(b, value, 2 * LANES * c, half), F32V) for c in range(columns)]
            made = acc
            for i in range(queries):
                x = splat(b, emit_load(b, b.add(p, b.mul(stride, ir.Constant(stride.type, i))), 0, F32))
                for c, row in enumerate(rows):
                    at = i * columns + c
                    made = b.insert_value(made, emit_fma(b, row, x, b.extract_value(acc, at)), at)
            return made

        return signature(acc, acc, types.int64, types.int64, types.int64), codegen

    return step


def make_scores(queries: int) -> Any:
    """`scores(q, stride, width, keys, out)`: dot products of some queries with LANES positions, BLOCK apart in out."""
    zeros, scatter = make_zeros(queries), make_scatter(queries, 4 * BLOCK)

    @inline
    def scores(q, stride, width, keys, out):
        acc = zeros()
        for c in range(width):
            acc = score_step(acc, load_f16(keys + 2 * LANES * c), q + 4 * c, stride)
        scatter(acc, out)

    return scores


def make_zeros(count: int) -> Any:
    """`zeros()`: a tuple of `count` f32v of zeros."""

    @intrinsic
    def zeros(typingctx):
        kind = types.UniTuple(f32v, count)
        return signature(kind), lambda context, b, sig, values: ir.Constant(ir.ArrayType(F32V, count), None)

    return zeros


def make_scatter(count: int, stride: int) -> Any:
    """`store(values, p)`: register i of a tuple to p + i * stride."""

    @intrinsic
    def store(typingctx, values_type, p):
        def codegen(context: Any, b: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
            for i in range(count):
                address = b.add(values[1], ir.Constant(values[1].type, i * stride))
                b.store(b.extract_value(values[0], i), b.inttoptr(address, F32V.as_pointer()), align=4)
            return context.get_dummy_value()

        return signature(types.void, values_type, types.int64), codegen

    return store


def make_values(queries: int, columns: int) -> Any:
    """`values(acc, acc_stride, v, v_stride, p, positions)`: acc += p @ v over some positions, `columns` registers wide."""
    step = make_value_step(queries, columns)

    @intrinsic
    def gather(typingctx, p, stride):
        def codegen(context: Any, b: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
            made = ir.Constant(ir.ArrayType(F32V, queries * columns), ir.Undefined)
            for i in range(queries):
                row = b.add(values[0], b.mul(values[1], ir.Constant(values[1].type, i)))
                for c in range(columns):
                    made = b.insert_value(made, emit_load(b, row, VECTOR_BYTES * c, F32V), i * columns + c)
            return made

        return signature(types.UniTuple(f32v, queries * columns), types.int64, types.int64), codegen

    @intrinsic
    def scatter(typingctx, acc, p, stride):
        def codegen(context: Any, b: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
            for i in range(queries):
                row = b.add(values[1], b.mul(values[2], ir.Constant(values[2].type, i)))
                for c in range(columns):
                    address = b.add(row, ir.Constant(row.type, VECTOR_BYTES * c))
                    b.store(b.extract_value(values[0], i * columns + c), b.inttoptr(address, F32V.as_pointer()), align=4)
            return context.get_dummy_value()

        return signature(types.void, acc, types.int64, types.int64), codegen

    @inline
    def run(acc, acc_stride, v, v_stride, p, positions):
        registers = gather(acc, acc_stride)
        for j in range(positions):
            registers = step(registers, v + j * v_stride, p + 4 * j, 4 * BLOCK)
        scatter(registers, acc, acc_stride)

    return run


scores_many, scores_one = make_scores(SCORE_QUERIES), make_scores(1)
values_many, values_one = make_values(VALUE_QUERIES, VALUE_COLUMNS), make_values(1, VALUE_COLUMNS)
values_narrow = make_values(1, 1)


@inline
def block_scores(q, queries, width, keys, out):
    """Dot products of all queries with the LANES positions at `keys`."""
    done = 0
    while done + SCORE_QUERIES <= queries:
        scores_many(q + 4 * width * done, 4 * width, width, keys, out + 4 * BLOCK * done)
        done += SCORE_QUERIES
    while done < queries:
        scores_one(q + 4 * width * done, 4 * width, width, keys, out + 4 * BLOCK * done)
        done += 1


@inline
def block_values(acc, queries, width, v, p, positions):
    """acc (queries, width) += p (queries, BLOCK) @ v (positions, width)."""
    chunk = LANES * VALUE_COLUMNS
    wide = width - width % chunk
    whole = width - width % LANES
    done = 0
    while done + VALUE_QUERIES <= queries:
        for c in range(0, wide, chunk):
            values_many(acc + 4 * (width * done + c), 4 * width, v + 2 * c, 2 * width, p + 4 * BLOCK * done, positions)
        done += VALUE_QUERIES
    for i in range(done, queries):
        for c in range(0, wide, chunk):
            values_one(acc + 4 * (width * i + c), 4 * width, v + 2 * c, 2 * width, p + 4 * BLOCK * i, positions)
    for i in range(queries):
        for c in range(wide, whole, LANES):
            values_narrow(acc + 4 * (width * i + c), 4 * width, v + 2 * c, 2 * width, p + 4 * BLOCK * i, positions)
        for c in range(whole, width):
            total = peek_f32(acc + 4 * (width * i + c))
            for j in range(positions):
                total += peek_f32(p + 4 * (BLOCK * i + j)) * peek_f16(v + 2 * (width * j + c))
            poke_f32(acc + 4 * (width * i + c), total)


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
def gather_queries(args, q, acc, most, total, token, count, first_head, group):
    """Scaled queries in a row, and empty accumulators."""
    width, value_width = peek_i64(args + ATT_KEY_WIDTH), peek_i64(args + ATT_VALUE_WIDTH)
    scale = peek_f32(args + ATT_SCALE)
    for i in range(count * group):
        source = peek_i64(args + ATT_Q) + (token + i // group) * peek_i64(args + ATT_Q_STRIDE) + 4 * width * (first_head + i % group)
        for c in range(width):
            poke_f32(q + 4 * (width * i + c), peek_f32(source + 4 * c) * scale)
        for c in range(value_width):
            poke_f32(acc + 4 * (value_width * i + c), 0.0)
        poke_f32(most + 4 * i, LOWEST)
        store_f32(total + VECTOR_BYTES * i, splat_f32(0.0))


@inline
def put_results(args, acc, total, token, count, first_head, group):
    """acc / total to the output, quantised for the next linear where asked."""
    width = peek_i64(args + ATT_VALUE_WIDTH)
    quantised, stride = peek_i64(args + ATT_QUANTISED), peek_i64(args + ATT_QUANTISED_STRIDE)
    row_width = width * peek_i64(args + ATT_HEADS)
    for i in range(count * group):
        t, column = token + i // group, width * (first_head + i % group)
        out = peek_i64(args + ATT_OUT) + t * peek_i64(args + ATT_OUT_STRIDE) + 4 * column
        divisor = sum_f32(load_f32(total + VECTOR_BYTES * i))
        for c in range(width):
            poke_f32(out + 4 * c, peek_f32(acc + 4 * (width * i + c)) / divisor)
        if quantised:
            quantise(out, quantised + t * stride, row_width, column, width)


@inline
def attend(args, state, scratch, token, count, first_head, group):
    """`count` tokens of one slot, `group` heads that share a key head."""
    width, value_width = peek_i64(args + ATT_KEY_WIDTH), peek_i64(args + ATT_VALUE_WIDTH)
    queries = count * group
    q, p = scratch, scratch + 4 * MAX_QUERIES * width
    acc, most = p + 4 * MAX_QUERIES * BLOCK, p + 4 * MAX_QUERIES * (BLOCK + value_width)
    total = most + 4 * MAX_QUERIES
    gather_queries(args, q, acc, most, total, token, count, first_head, group)
    context, positions = peek_i64(state + STATE_CONTEXT), peek_i64(state + STATE_POSITIONS)
    key_heads, slot = peek_i64(args + ATT_KEY_HEADS), peek_i32(peek_i64(state + STATE_SLOTS) + 4 * token)
    head = slot * key_heads + first_head // (peek_i64(args + ATT_HEADS) // key_heads)
    keys = peek_i64(args + ATT_KEYS) + 2 * head * ((context + LANES - 1) // LANES) * LANES * width
    values = peek_i64(args + ATT_VALUES) + 2 * head * context * value_width
    window, softcap = peek_i64(args + ATT_WINDOW), peek_f32(args + ATT_SOFTCAP)
    last = peek_i32(positions + 4 * (token + count - 1))
    lowest = max(0, peek_i32(positions + 4 * token) - window + 1)
    for first in range(lowest // BLOCK * BLOCK, last + 1, BLOCK):
        seen = min(BLOCK, last + 1 - first)
        for j in range(0, seen, LANES):
            block_scores(q, queries, width, keys + 2 * (first + j) * width, p + 4 * j)
        for i in range(queries):
            high = peek_i32(positions + 4 * (token + i // group))
            at = acc + 4 * value_width * i
            soften(p + 4 * BLOCK * i, first, high - window + 1, high, softcap, most + 4 * i, total + VECTOR_BYTES * i, at, value_width)
        block_values(acc, queries, value_width, values + 2 * first * value_width, p, seen)
    put_results(args, acc, total, token, count, first_head, group)


def attention(args, state, thread, threads):
    """Pieces of work: for one token a head each, for many a key head with a run of tokens."""
    heads = peek_i64(args + ATT_HEADS)
    tokens, slots = peek_i64(state + STATE_TOKENS), peek_i64(state + STATE_SLOTS)
    scratch = peek_i64(state + STATE_SCRATCH) + thread * SCRATCH_BYTES
    group = 1 if tokens == 1 else peek_i64(args + ATT_GROUP)  # divides H / K, at most MAX_QUERIES
    run = 1 if tokens == 1 else max(1, MAX_QUERIES // group)
    parts = heads // group
    todo = (tokens + run - 1) // run * parts
    while True:
        index = atomic_add(peek_i64(args + ATT_COUNTER), 1)
        if index >= todo:
            break
        token, end = index // parts * run, min(tokens, (index // parts + 1) * run)
        while token < end:  # a run may touch several slots
            count = 1
            while token + count < end and peek_i32(slots + 4 * (token + count)) == peek_i32(slots + 4 * token):
                count += 1
            attend(args, state, scratch, token, count, index % parts * group, group)
            token += count
