"""Linear attention by the gated delta rule: a block of the columns of a head's state stays in the first cache while the tokens
pass, so that a prompt costs no more than its tokens one by one, and gives their bits.

Columns do not know each other, and sums over rows run in one order; how columns are shared among threads changes nothing.
"""

from typing import Any

from lacewing.backends.cpu.arguments import DELTA, DELTA_TILE, SCRATCH_BYTES, STATE
from lacewing.backends.cpu.kernels.attention.attention import same_row
from lacewing.backends.cpu.kernels.simd.functions import exp, sigmoid, softplus
from lacewing.backends.cpu.kernels.simd.instructions import (
    fma,
    fma1,
    load_f32,
    peek_f32,
    peek_i32,
    peek_i64,
    poke_f32,
    splat_f32,
    sqrt1,
    store_f32,
    stream_f32,
    sum_f32,
    top_f32,
)
from lacewing.backends.cpu.kernels.simd.registers import LANES, VECTOR_BYTES, inline
from lacewing.backends.cpu.kernels.simd.threads import atomic_add

WIDE, WIDE_BYTES = 2 * LANES, 2 * VECTOR_BYTES  # columns of a block
PIECES = 4  # at least, for each thread, where there are so many blocks


@inline
def squares(x, width):
    """Sum of x^2, in an order that LANES fixes."""
    whole, total = width - width % LANES, splat_f32(0.0)
    for i in range(0, whole, LANES):
        total = fma(load_f32(x + 4 * i), load_f32(x + 4 * i), total)
    rest = sum_f32(total)
    for i in range(whole, width):
        rest = fma1(peek_f32(x + 4 * i), peek_f32(x + 4 * i), rest)
    return rest


@inline
def load_block(source, stride, block, rows, columns):
    """Columns of a unit to scratch, `stride` bytes from row to row; zeros behind the last, and without a source."""
    zero = splat_f32(0.0)
    for i in range(rows):
        at, given = block + WIDE_BYTES * i, source + stride * i
        if source and columns == WIDE:
            store_f32(at, load_f32(given))
            store_f32(at + VECTOR_BYTES, load_f32(given + VECTOR_BYTES))
        else:
            store_f32(at, zero)
            store_f32(at + VECTOR_BYTES, zero)
            if source:
                copy_columns(given, at, columns)


@inline
def store_block(block, target, stride, rows, columns):
    """The other way. Past the caches: the weights of all layers are read before a unit is needed once more, and stores that fetch
    lines first take longer."""
    aligned = target % VECTOR_BYTES == 0 and stride % VECTOR_BYTES == 0
    for i in range(rows):
        at, to = block + WIDE_BYTES * i, target + stride * i
        if columns < WIDE:
            copy_columns(at, to, columns)
        elif aligned:
            stream_f32(to, load_f32(at))
            stream_f32(to + VECTOR_BYTES, load_f32(at + VECTOR_BYTES))
        else:
            store_f32(to, load_f32(at))
            store_f32(to + VECTOR_BYTES, load_f32(at + VECTOR_BYTES))


@inline
def copy_columns(source, to, columns):
    for c in range(columns):
        poke_f32(to + 4 * c, peek_f32(source + 4 * c))


@inline
def recall(block, keys, rows, out):
    """out (WIDE,) = keys (rows,) @ block (rows, WIDE), four rows side by side."""
    a0, a1, a2, a3 = splat_f32(0.0), splat_f32(0.0), splat_f32(0.0), splat_f32(0.0)
    b0, b1, b2, b3 = splat_f32(0.0), splat_f32(0.0), splat_f32(0.0), splat_f32(0.0)
    whole = rows - rows % 4
    for i in range(0, whole, 4):
        at, key = block + WIDE_BYTES * i, keys + 4 * i
        k0, k1, k2, k3 = (
            splat_f32(peek_f32(key)),
            splat_f32(peek_f32(key + 4)),
            splat_f32(peek_f32(key + 8)),
            splat_f32(peek_f32(key + 12)),
        )
        a0, b0 = fma(k0, load_f32(at), a0), fma(k0, load_f32(at + VECTOR_BYTES), b0)
        a1, b1 = fma(k1, load_f32(at + 2 * VECTOR_BYTES), a1), fma(k1, load_f32(at + 3 * VECTOR_BYTES), b1)
        a2, b2 = fma(k2, load_f32(at + 4 * VECTOR_BYTES), a2), fma(k2, load_f32(at + 5 * VECTOR_BYTES), b2)
        a3, b3 = fma(k3, load_f32(at + 6 * VECTOR_BYTES), a3), fma(k3, load_f32(at + 7 * VECTOR_BYTES), b3)
    for i in range(whole, rows):
        k0 = splat_f32(peek_f32(keys + 4 * i))
        a0 = fma(k0, load_f32(block + WIDE_BYTES * i), a0)
        b0 = fma(k0, load_f32(block + WIDE_BYTES * i + VECTOR_BYTES), b0)
    store_f32(out, (a0 + a1) + (a2 + a3))
    store_f32(out + VECTOR_BYTES, (b0 + b1) + (b2 + b3))


def make_renew(by_row: bool) -> Any:
    """`renew`: block = decay * block + outer(keys, u), in place; out = factor * (queries @ block)."""

    @inline
    def renew(block, keys, queries, rows, decay, decays, u, factor, out):
        u0, u1, kept = load_f32(u), load_f32(u + VECTOR_BYTES), splat_f32(decay)
        a0, a1, b0, b1 = splat_f32(0.0), splat_f32(0.0), splat_f32(0.0), splat_f32(0.0)
        whole = rows - rows % 2
        for i in range(0, whole, 2):
            at = block + WIDE_BYTES * i
            if by_row:
                kept = splat_f32(peek_f32(decays + 4 * i))
            k, q = splat_f32(peek_f32(keys + 4 * i)), splat_f32(peek_f32(queries + 4 * i))
            s0, s1 = fma(k, u0, kept * load_f32(at)), fma(k, u1, kept * load_f32(at + VECTOR_BYTES))
            store_f32(at, s0)
            store_f32(at + VECTOR_BYTES, s1)
            a0, b0 = fma(q, s0, a0), fma(q, s1, b0)
            if by_row:
                kept = splat_f32(peek_f32(decays + 4 * i + 4))
            k, q = splat_f32(peek_f32(keys + 4 * i + 4)), splat_f32(peek_f32(queries + 4 * i + 4))
            s0 = fma(k, u0, kept * load_f32(at + 2 * VECTOR_BYTES))
            s1 = fma(k, u1, kept * load_f32(at + 3 * VECTOR_BYTES))
            store_f32(at + 2 * VECTOR_BYTES, s0)
            store_f32(at + 3 * VECTOR_BYTES, s1)
            a1, b1 = fma(q, s0, a1), fma(q, s1, b1)
        if whole < rows:
            at = block + WIDE_BYTES * whole
            if by_row:
                kept = splat_f32(peek_f32(decays + 4 * whole))
            k, q = splat_f32(peek_f32(keys + 4 * whole)), splat_f32(peek_f32(queries + 4 * whole))
            s0, s1 = fma(k, u0, kept * load_f32(at)), fma(k, u1, kept * load_f32(at + VECTOR_BYTES))
            store_f32(at, s0)
            store_f32(at + VECTOR_BYTES, s1)
            a0, b0 = fma(q, s0, a0), fma(q, s1, b0)
        store_f32(out, splat_f32(factor) * (a0 + a1))
        store_f32(out + VECTOR_BYTES, splat_f32(factor) * (b0 + b1))

    return renew


def make_prepare(by_row: bool) -> Any:
    """`prepare`: what a token brings to a head, float32: the factors of what is recalled, of what is learnt and of the output, and
    the decay; by row also the decays, and the keys times these."""

    @inline
    def prepare(args, token, head, key_head, entry):
        rows = peek_i64(args + DELTA.key_width)
        q = peek_i64(args + DELTA.q) + token * peek_i64(args + DELTA.q_stride) + 4 * rows * key_head
        k = peek_i64(args + DELTA.k) + token * peek_i64(args + DELTA.k_stride) + 4 * rows * key_head
        size = 1.0 / sqrt1(squares(k, rows) + peek_f32(args + DELTA.eps))
        beta = sigmoid(splat_f32(peek_f32(peek_i64(args + DELTA.beta) + token * peek_i64(args + DELTA.beta_stride) + 4 * head)))
        rate = splat_f32(peek_f32(peek_i64(args + DELTA.rate) + 4 * head))
        if peek_i64(args + DELTA.log_rate):
            rate = splat_f32(0.0) - exp(rate)
        decay = peek_i64(args + DELTA.decay) + token * peek_i64(args + DELTA.decay_stride)
        bias, kept = peek_i64(args + DELTA.bias), splat_f32(1.0)
        if by_row:
            for i in range(rows):  # padded: reads of whole registers would pass the end of the last row
                at = 4 * (rows * head + i)
                poke_f32(entry + 16 + 4 * i, peek_f32(decay + at) + peek_f32(bias + at))
            for i in range(0, rows, LANES):
                store_f32(entry + 16 + 4 * i, exp(rate * softplus(load_f32(entry + 16 + 4 * i))))
            for i in range(rows):
                poke_f32(entry + 16 + 4 * (rows + LANES + i), peek_f32(entry + 16 + 4 * i) * peek_f32(k + 4 * i))
        else:
            kept = exp(rate * softplus(splat_f32(peek_f32(decay + 4 * head) + peek_f32(bias + 4 * head))))
        poke_f32(entry, top_f32(kept) * size)
        poke_f32(entry + 4, top_f32(beta) * size)
        poke_f32(entry + 8, peek_f32(args + DELTA.scale) / sqrt1(squares(q, rows) + peek_f32(args + DELTA.eps)))
        poke_f32(entry + 12, top_f32(kept))

    return prepare


def make_advance(by_row: bool) -> Any:
    """`advance`: one token over one block."""
    renew = make_renew(by_row)

    @inline
    def advance(block, k, q, v, out, columns, rows, entry, scratch):
        recalled, learnt = peek_f32(entry), peek_f32(entry + 4)
        decays = entry + 16
        recall(block, decays + 4 * (rows + LANES) if by_row else k, rows, scratch)
        if columns < WIDE:
            copy_columns(v, scratch + WIDE_BYTES, columns)
            v = scratch + WIDE_BYTES
        for i in range(0, WIDE_BYTES, VECTOR_BYTES):
            new = load_f32(v + i) - splat_f32(recalled) * load_f32(scratch + i)
            store_f32(scratch + i, splat_f32(learnt) * new)
        made = scratch + WIDE_BYTES if columns < WIDE else out
        renew(block, k, q, rows, peek_f32(entry + 12), decays, scratch, peek_f32(entry + 8), made)
        if columns < WIDE:
            copy_columns(made, out, columns)

    return advance


def make_walk(by_row: bool) -> Any:
    """`walk`: the tokens of one row over some blocks of one head."""
    prepare, advance = make_prepare(by_row), make_advance(by_row)

    @inline
    def walk(args, state, scratch, token, count, head, first, end):
        rows, width = peek_i64(args + DELTA.key_width), peek_i64(args + DELTA.value_width)
        heads, key_heads = peek_i64(args + DELTA.heads), peek_i64(args + DELTA.key_heads)
        key_head = head % key_heads if peek_i64(args + DELTA.tiled) else head // (heads // key_heads)
        row, units = peek_i32(peek_i64(state + STATE.rows) + 4 * token), peek_i64(args + DELTA.units) + 4 * rows * width * head
        index = peek_i32(peek_i64(args + DELTA.units_in) + 4 * row)
        k_stride, q_stride = peek_i64(args + DELTA.k_stride), peek_i64(args + DELTA.q_stride)
        v_stride, out_stride = peek_i64(args + DELTA.v_stride), peek_i64(args + DELTA.out_stride)
        entry_bytes = 16 + 8 * (rows + LANES) if by_row else 16
        table = scratch + 2 * WIDE_BYTES
        blocks = table + DELTA_TILE * entry_bytes
        source = units + index * peek_i64(args + DELTA.unit_bytes)
        target = units + peek_i32(peek_i64(args + DELTA.units_out) + 4 * row) * peek_i64(args + DELTA.unit_bytes)
        for start in range(0, count, DELTA_TILE):
            size = min(DELTA_TILE, count - start)
            for t in range(size):
                prepare(args, token + start + t, head, key_head, table + entry_bytes * t)
            k = peek_i64(args + DELTA.k) + (token + start) * k_stride + 4 * rows * key_head
            q = peek_i64(args + DELTA.q) + (token + start) * q_stride + 4 * rows * key_head
            for b in range(first, end):
                block, columns = blocks + WIDE_BYTES * rows * (b - first), min(WIDE, width - WIDE * b)
                if start == 0:
                    load_block(source + 4 * WIDE * b if index >= 0 else 0, 4 * width, block, rows, columns)
                v = peek_i64(args + DELTA.v) + (token + start) * v_stride + 4 * (width * head + WIDE * b)
                out = peek_i64(args + DELTA.out) + (token + start) * out_stride + 4 * (width * head + WIDE * b)
                for t in range(size):
                    entry = table + entry_bytes * t
                    advance(block, k + t * k_stride, q + t * q_stride, v + t * v_stride, out + t * out_stride, columns, rows, entry,
                            scratch)  # fmt: skip
                if start + size == count:
                    store_block(block, target + 4 * WIDE * b, 4 * width, rows, columns)

    return walk


def make_gated_delta(by_row: bool) -> Any:
    """`kernel`; `by_row`: every row of a state has a decay of its own."""
    walk = make_walk(by_row)

    def kernel(args, state, thread, threads):
        """Pieces of work: the tokens of a row in a head, or in some columns of one where there are few heads."""
        heads, blocks = peek_i64(args + DELTA.heads), (peek_i64(args + DELTA.value_width) + WIDE - 1) // WIDE
        tokens, rows = peek_i64(state + STATE.tokens), peek_i64(state + STATE.rows)
        scratch = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
        found, token = 0, 0
        while token < tokens:
            token += same_row(rows, token, tokens, tokens)
            found += 1
        splits = min(blocks, max(1, (PIECES * threads + heads * found - 1) // (heads * found)))
        share = (blocks + splits - 1) // splits
        splits = (blocks + share - 1) // share
        piece, token, count = 0, 0, same_row(rows, 0, tokens, tokens)
        while True:
            index = atomic_add(peek_i64(args + DELTA.counter), 1)
            while piece < index // (heads * splits) and token + count < tokens:  # as indices only grow
                piece, token = piece + 1, token + count
                count = same_row(rows, token, tokens, tokens)
            if piece < index // (heads * splits):
                break
            part = index % (heads * splits)
            first = part % splits * share
            walk(args, state, scratch, token, count, part // splits, first, min(blocks, first + share))

    return kernel


gated_delta, gated_delta_by_row = make_gated_delta(False), make_gated_delta(True)
