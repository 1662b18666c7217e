"""What happens to a head between projection and attention: QK norm, rotary position, writing to the KV cache (stored.py)."""

from lacewing.backends.cpu.arguments import ANGLES, HEADS, STATE
from lacewing.backends.cpu.kernels.attention.stored import BLOCK, F16_STORED, F32_STORED, Q8_STORED
from lacewing.backends.cpu.kernels.norm import normalise
from lacewing.backends.cpu.kernels.simd.functions import cos_sin
from lacewing.backends.cpu.kernels.simd.instructions import (
    butterflies,
    load_f32,
    peek_f32,
    peek_f64,
    peek_i32,
    peek_i64,
    poke_f32,
    splat_f32,
    sqrt1,
    store_f32,
)
from lacewing.backends.cpu.kernels.simd.registers import LANES, inline


def angles(args, state, thread, threads):
    """cos and sin of every pair at every token's position: float32 (T, 2, pairs). In float64: long contexts need it."""
    frequencies, pairs = peek_i64(args + ANGLES.frequencies), peek_i64(args + ANGLES.pairs)
    magnitude, out = peek_f64(args + ANGLES.magnitude), peek_i64(args + ANGLES.out)
    tokens, positions = peek_i64(state + STATE.tokens), peek_i64(state + STATE.positions)
    todo = tokens * pairs
    for index in range(todo * thread // threads, todo * (thread + 1) // threads):
        t, i = index // pairs, index % pairs
        cosine, sine = cos_sin(peek_i32(positions + 4 * t) * peek_f64(frequencies + 8 * i))
        poke_f32(out + 4 * (2 * pairs * t + i), cosine * magnitude)
        poke_f32(out + 4 * (2 * pairs * t + pairs + i), sine * magnitude)


@inline
def rotate_halves(x, cosines, sines, pairs):
    """Pairs (i, i + pairs)."""
    whole = pairs - pairs % LANES
    for i in range(0, whole, LANES):
        a, b = load_f32(x + 4 * i), load_f32(x + 4 * (i + pairs))
        c, s = load_f32(cosines + 4 * i), load_f32(sines + 4 * i)
        store_f32(x + 4 * i, a * c - b * s)
        store_f32(x + 4 * (i + pairs), a * s + b * c)
    for i in range(whole, pairs):
        rotate_pair(x + 4 * i, x + 4 * (i + pairs), cosines + 4 * i, sines + 4 * i)


@inline
def rotate_pair(pa, pb, pc, ps):
    a, b, c, s = peek_f32(pa), peek_f32(pb), peek_f32(pc), peek_f32(ps)
    poke_f32(pa, a * c - b * s)
    poke_f32(pb, a * s + b * c)


@inline
def spread(x, width, size):
    """Every `size` values times the Hadamard matrix over sqrt(size)."""
    scale = splat_f32(1.0 / sqrt1(size * 1.0))
    for i in range(0, width, LANES):
        store_f32(x + 4 * i, butterflies(load_f32(x + 4 * i) * scale))
    half = LANES
    while half < size:
        for start in range(0, width, 2 * half):
            for i in range(start, start + half, LANES):
                a, b = load_f32(x + 4 * i), load_f32(x + 4 * (i + half))
                store_f32(x + 4 * i, a + b)
                store_f32(x + 4 * (i + half), a - b)
        half *= 2


def make_heads(stored):
    """`kernel` for a KV cache of one type."""
    bytes_of, store_key, store_value = stored.row_bytes, stored.store_key, stored.store_value

    @inline
    def store_head(args, x, width, head, page, place):
        """Keys or values of one head, at a place of a page."""
        keys, values = peek_i64(args + HEADS.keys), peek_i64(args + HEADS.values)
        row_bytes = bytes_of(width)
        first = page * peek_i64(args + HEADS.page_bytes) + head * BLOCK * row_bytes
        if keys:
            store_key(x, width, keys + first + place // LANES * LANES * row_bytes, place % LANES)
        if values:
            store_value(x, width, values + first + place * row_bytes)

    def kernel(args, state, thread, threads):
        """Each head of each token: normalise, rotate, spread, store, as far as asked. Threads share (token, head) evenly."""
        x, stride, count, width = (
            peek_i64(args),
            peek_i64(args + HEADS.stride),
            peek_i64(args + HEADS.count),
            peek_i64(args + HEADS.width),
        )
        norm, weight, eps = peek_i64(args + HEADS.norm), peek_i64(args + HEADS.weight), peek_f32(args + HEADS.eps)
        bias, centred = peek_i64(args + HEADS.bias), peek_i64(args + HEADS.centred)
        size = peek_i64(args + HEADS.hadamard)
        table, pairs, adjacent = peek_i64(args + HEADS.angles), peek_i64(args + HEADS.pairs), peek_i64(args + HEADS.adjacent)
        rows, positions, pages = peek_i64(state + STATE.rows), peek_i64(state + STATE.positions), peek_i64(args + HEADS.table)
        todo = count * peek_i64(state + STATE.tokens)
        for index in range(todo * thread // threads, todo * (thread + 1) // threads):
            t, head = index // count, index % count
            at = x + t * stride + 4 * width * head
            if norm:
                normalise(at, weight, bias, at, width, eps, centred)
            if table:
                cosines = table + 8 * pairs * t
                sines = cosines + 4 * pairs
                turned = at + 4 * peek_i64(args + HEADS.start)
                if adjacent:
                    for i in range(pairs):
                        rotate_pair(turned + 8 * i, turned + 8 * i + 4, cosines + 4 * i, sines + 4 * i)
                else:
                    rotate_halves(turned, cosines, sines, pairs)
            if size:
                spread(at, width, size)
            if pages:
                position = peek_i32(positions + 4 * t)
                own = pages + peek_i32(rows + 4 * t) * peek_i64(args + HEADS.table_stride)
                store_head(args, at, width, head, peek_i32(own + 4 * (position // BLOCK)), position % BLOCK)

    return kernel


heads_f16, heads_f32, heads_q8_0 = make_heads(F16_STORED), make_heads(F32_STORED), make_heads(Q8_STORED)
