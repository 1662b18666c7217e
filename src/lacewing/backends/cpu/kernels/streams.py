"""Sums, scales and several residual streams. Semantics: program/stream_ops.py."""

from lacewing.backends.cpu.arguments import ADD_SCALE, ALTUP, MAGNITUDE, SCRATCH_BYTES, STATE, TOP_K
from lacewing.backends.cpu.kernels.simd.functions import tanh
from lacewing.backends.cpu.kernels.simd.instructions import (
    fma,
    fma1,
    load_f32,
    peek_f32,
    peek_i64,
    poke_f32,
    select_lt,
    splat_f32,
    sqrt1,
    store_f32,
    sum_f32,
)
from lacewing.backends.cpu.kernels.simd.registers import LANES, VECTOR_BYTES, inline

PIECE = 256  # columns that are treated at once


@inline
def pieces_of(width):
    return (width + PIECE - 1) // PIECE


def add_scale(args, state, thread, threads):
    """Threads share (token, repeat, piece) evenly."""
    width, repeats = peek_i64(args + ADD_SCALE.width), peek_i64(args + ADD_SCALE.repeats)
    weight, step = peek_i64(args + ADD_SCALE.weight), peek_i64(args + ADD_SCALE.weight_step)
    add, factor, pieces = peek_i64(args + ADD_SCALE.add), peek_f32(args + ADD_SCALE.factor), pieces_of(width)
    todo = pieces * repeats * peek_i64(state + STATE.tokens)
    for index in range(todo * thread // threads, todo * (thread + 1) // threads):
        t, part, first = index // (pieces * repeats), index // pieces % repeats * width, index % pieces * PIECE
        x = peek_i64(args + ADD_SCALE.x) + t * peek_i64(args + ADD_SCALE.x_stride) + 4 * part
        out = peek_i64(args + ADD_SCALE.out) + t * peek_i64(args + ADD_SCALE.out_stride) + 4 * part
        more = add + t * peek_i64(args + ADD_SCALE.add_stride)
        last = min(first + PIECE, width)
        whole = first + (last - first) // LANES * LANES
        for c in range(first, whole, LANES):
            v = load_f32(x + 4 * c)
            if add:
                v = v + load_f32(more + 4 * c)
            v = v * splat_f32(factor)
            if weight:
                v = v * (load_f32(weight + 4 * c) if step else splat_f32(peek_f32(weight)))
            store_f32(out + 4 * c, v)
        for c in range(whole, last):
            one = peek_f32(x + 4 * c)
            if add:
                one += peek_f32(more + 4 * c)
            one *= factor
            if weight:
                one *= peek_f32(weight + step * c)
            poke_f32(out + 4 * c, one)


@inline
def coefficients(args, t, rows, to, work):
    """float32 (rows,) at `to`: weight @ tanh(scale * router of token t). `work`: room for the streams' values."""
    count = peek_i64(args + ALTUP.streams)
    router, weight = peek_i64(args + ALTUP.router) + t * peek_i64(args + ALTUP.router_stride), peek_i64(args + ALTUP.weight)
    for j in range(count):
        store_f32(work + 4 * j, tanh(splat_f32(peek_f32(router + 4 * j) * peek_f32(args + ALTUP.scale))))  # the next overwrites
    for i in range(rows):
        total = 0.0
        for j in range(count):
            total = fma1(peek_f32(weight + 4 * (i * count + j)), peek_f32(work + 4 * j), total)
        poke_f32(to + 4 * i, total)


def altup_predict(args, state, thread, threads):
    """Threads share (token, piece) evenly; a piece of all streams is read before it is written."""
    width, count = peek_i64(args + ALTUP.width), peek_i64(args + ALTUP.streams)
    old = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
    c = old + count * VECTOR_BYTES  # of the last token, whose index is `known`
    pieces, known = pieces_of(width), -1
    todo = pieces * peek_i64(state + STATE.tokens)
    for index in range(todo * thread // threads, todo * (thread + 1) // threads):
        t, first = index // pieces, index % pieces * PIECE
        if t != known:
            coefficients(args, t, count * count, c, old)
            known = t
        x = peek_i64(args + ALTUP.x) + t * peek_i64(args + ALTUP.x_stride)
        last = min(first + PIECE, width)
        whole = first + (last - first) // LANES * LANES
        for at in range(first, whole, LANES):
            for i in range(count):
                store_f32(old + i * VECTOR_BYTES, load_f32(x + 4 * (i * width + at)))
            for i in range(count):
                v = load_f32(old + i * VECTOR_BYTES)
                for j in range(count):
                    v = fma(splat_f32(peek_f32(c + 4 * (i * count + j))), load_f32(old + j * VECTOR_BYTES), v)
                store_f32(x + 4 * (i * width + at), v)
        for at in range(whole, last):
            for i in range(count):
                poke_f32(old + 4 * i, peek_f32(x + 4 * (i * width + at)))
            for i in range(count):
                one = peek_f32(old + 4 * i)
                for j in range(count):
                    one = fma1(peek_f32(c + 4 * (i * count + j)), peek_f32(old + 4 * j), one)
                poke_f32(x + 4 * (i * width + at), one)


def altup_correct(args, state, thread, threads):
    """Threads share (token, piece) evenly."""
    width, count, active = peek_i64(args + ALTUP.width), peek_i64(args + ALTUP.streams), peek_i64(args + ALTUP.active)
    work = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
    c = work + count * VECTOR_BYTES
    pieces, known = pieces_of(width), -1
    todo = pieces * peek_i64(state + STATE.tokens)
    for index in range(todo * thread // threads, todo * (thread + 1) // threads):
        t, first = index // pieces, index % pieces * PIECE
        if t != known:
            coefficients(args, t, count, c, work)
            known = t
        x = peek_i64(args + ALTUP.x) + t * peek_i64(args + ALTUP.x_stride)
        new = peek_i64(args + ALTUP.new) + t * peek_i64(args + ALTUP.new_stride)
        last = min(first + PIECE, width)
        whole = first + (last - first) // LANES * LANES
        for at in range(first, whole, LANES):
            change = load_f32(new + 4 * at) - load_f32(x + 4 * (active * width + at))
            for i in range(count):
                to = x + 4 * (i * width + at)
                store_f32(to, fma(splat_f32(1.0 + peek_f32(c + 4 * i)), change, load_f32(to)))
        for at in range(whole, last):
            rest = peek_f32(new + 4 * at) - peek_f32(x + 4 * (active * width + at))
            for i in range(count):
                to = x + 4 * (i * width + at)
                poke_f32(to, fma1(1.0 + peek_f32(c + 4 * i), rest, peek_f32(to)))


@inline
def squares_around(x, centre, width):
    """The sum of (x - centre)^2. Its order is fixed by LANES."""
    whole, many = width - width % LANES, splat_f32(centre)
    squares = splat_f32(0.0)
    for i in range(0, whole, LANES):
        v = load_f32(x + 4 * i) - many
        squares = fma(v, v, squares)
    total = sum_f32(squares)
    for i in range(whole, width):
        total = fma1(peek_f32(x + 4 * i) - centre, peek_f32(x + 4 * i) - centre, total)
    return total


def match_magnitude(args, state, thread, threads):
    """Threads share the tokens evenly."""
    width, tokens, least = peek_i64(args + MAGNITUDE.width), peek_i64(state + STATE.tokens), peek_f32(args + MAGNITUDE.least)
    whole = width - width % LANES
    for t in range(tokens * thread // threads, tokens * (thread + 1) // threads):
        x = peek_i64(args + MAGNITUDE.x) + t * peek_i64(args + MAGNITUDE.x_stride)
        like = peek_i64(args + MAGNITUDE.like) + t * peek_i64(args + MAGNITUDE.like_stride)
        mine = squares_around(x, 0.0, width) / width
        mine = least if mine < least else mine  # NaN stays
        factor = sqrt1(squares_around(like, 0.0, width) / width / mine)
        for i in range(0, whole, LANES):
            store_f32(x + 4 * i, load_f32(x + 4 * i) * splat_f32(factor))
        for i in range(whole, width):
            poke_f32(x + 4 * i, peek_f32(x + 4 * i) * factor)


def gaussian_top_k(args, state, thread, threads):
    """Threads share the tokens evenly."""
    width, tokens, cutoff = peek_i64(args + TOP_K.width), peek_i64(state + STATE.tokens), peek_f32(args + TOP_K.cutoff)
    whole = width - width % LANES
    for t in range(tokens * thread // threads, tokens * (thread + 1) // threads):
        x = peek_i64(args + TOP_K.x) + t * peek_i64(args + TOP_K.x_stride)
        sums = splat_f32(0.0)
        for i in range(0, whole, LANES):
            sums = sums + load_f32(x + 4 * i)
        total = sum_f32(sums)
        for i in range(whole, width):
            total += peek_f32(x + 4 * i)
        mean = total / width
        least = fma1(cutoff, sqrt1(squares_around(x, mean, width) / width), mean)
        for i in range(0, whole, LANES):
            v = load_f32(x + 4 * i) - splat_f32(least)
            store_f32(x + 4 * i, select_lt(v, splat_f32(0.0), splat_f32(0.0), v))  # unlike a maximum, a choice keeps NaN
        for i in range(whole, width):
            one = peek_f32(x + 4 * i) - least
            poke_f32(x + 4 * i, 0.0 if one < 0 else one)
