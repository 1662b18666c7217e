"""What happens to queries, keys and values between projection and attention: QK norm, rotary position, storing.

Keys of a head lie in blocks of LANES positions, [position / LANES][column][position % LANES], so that attention scores
LANES positions at once; values lie position by position, [position][column]. Both are float16, or float32 where the weights are.
"""

from lacewing.backends.cpu.arguments import ANGLES, HEADS, STATE
from lacewing.backends.cpu.kernels.norm import normalise
from lacewing.backends.cpu.kernels.simd.functions import cos_sin
from lacewing.backends.cpu.kernels.simd.instructions import (
    load_f32,
    peek_f32,
    peek_f64,
    peek_i32,
    peek_i64,
    poke_f16,
    poke_f32,
    store_f16,
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


def make_heads(store, poke, itemsize):
    """`kernel` for keys and values of one precision."""

    @inline
    def store_head(x, width, head, heads, slot, position, context, keys, values):
        if keys:
            blocks = (context + LANES - 1) // LANES
            block = (slot * heads + head) * blocks + position // LANES
            at = keys + itemsize * (block * width * LANES + position % LANES)
            for c in range(width):
                poke(at + itemsize * LANES * c, peek_f32(x + 4 * c))
        if values:
            at = values + itemsize * ((slot * heads + head) * context + position) * width
            whole = width - width % LANES
            for c in range(0, whole, LANES):
                store(at + itemsize * c, load_f32(x + 4 * c))
            for c in range(whole, width):
                poke(at + itemsize * c, peek_f32(x + 4 * c))

    def kernel(args, state, thread, threads):
        """Each head of each token: normalise, rotate, store, as far as asked. Threads share (token, head) evenly."""
        x, stride, count, width = (
            peek_i64(args),
            peek_i64(args + HEADS.stride),
            peek_i64(args + HEADS.count),
            peek_i64(args + HEADS.width),
        )
        norm, weight, eps = peek_i64(args + HEADS.norm), peek_i64(args + HEADS.weight), peek_f32(args + HEADS.eps)
        table, pairs, adjacent = peek_i64(args + HEADS.angles), peek_i64(args + HEADS.pairs), peek_i64(args + HEADS.adjacent)
        keys, values = peek_i64(args + HEADS.keys), peek_i64(args + HEADS.values)
        slots, positions, context = (
            peek_i64(state + STATE.slots),
            peek_i64(state + STATE.positions),
            peek_i64(state + STATE.context),
        )
        todo = count * peek_i64(state + STATE.tokens)
        for index in range(todo * thread // threads, todo * (thread + 1) // threads):
            t, head = index // count, index % count
            at = x + t * stride + 4 * width * head
            if norm:
                normalise(at, weight, at, width, eps)
            if table:
                cosines = table + 8 * pairs * t
                sines = cosines + 4 * pairs
                turned = at + 4 * peek_i64(args + HEADS.start)
                if adjacent:
                    for i in range(pairs):
                        rotate_pair(turned + 8 * i, turned + 8 * i + 4, cosines + 4 * i, sines + 4 * i)
                else:
                    rotate_halves(turned, cosines, sines, pairs)
            store_head(at, width, head, count, peek_i32(slots + 4 * t), peek_i32(positions + 4 * t), context, keys, values)

    return kernel


heads_f16, heads_f32 = make_heads(store_f16, poke_f16, 2), make_heads(store_f32, poke_f32, 4)
