"""Ops that treat every column alike: activations, gated and single, the soft-cap of logits."""

from lacewing.backends.cpu.arguments import CAP, COMBINE, GATED, SCALE, SCRATCH_BYTES, SPLIT, STATE, TAILS
from lacewing.backends.cpu.kernels.experts.pairs import pairs_to_do
from lacewing.backends.cpu.kernels.quants.activations import quantise
from lacewing.backends.cpu.kernels.simd.functions import gelu, gelu_tanh, relu2, sigmoid, softplus, tanh
from lacewing.backends.cpu.kernels.simd.instructions import (
    fma,
    fma1,
    load_f32,
    peek_f32,
    peek_i32,
    peek_i64,
    poke_f32,
    select_lt,
    splat_f32,
    store_f32,
    sum_f32,
)
from lacewing.backends.cpu.kernels.simd.registers import LANES, VECTOR_BYTES, inline
from lacewing.backends.cpu.kernels.simd.threads import atomic_add

PIECE = 256  # columns that are treated at once
SHARES = 8  # of an op that each thread takes, if there are so many pieces: a counter that all threads change is slow


@inline
def silu(x):
    return x * sigmoid(x)


@inline
def plain(x):
    return x


def make_gated(activation):
    """`kernel`: out = activation(gate) * up, quantised for the next linear where asked."""

    @inline
    def piece(gate, up, out, count, scratch, args):
        whole = count - count % LANES
        for i in range(0, whole, LANES):
            store_f32(out + 4 * i, activation(load_f32(gate + 4 * i)) * load_f32(up + 4 * i))
        if whole < count:  # the rest by way of a full register
            activate_rest(activation, gate + 4 * whole, count - whole, scratch)
            for i in range(whole, count):
                poke_f32(out + 4 * i, peek_f32(scratch + 4 * (i - whole)) * peek_f32(up + 4 * i))

    return make_kernel(piece)


def make_single(activation):
    """`kernel`: out = activation(gate), likewise; there is no up."""

    @inline
    def piece(gate, up, out, count, scratch, args):
        whole = count - count % LANES
        for i in range(0, whole, LANES):
            store_f32(out + 4 * i, activation(load_f32(gate + 4 * i)))
        if whole < count:
            activate_rest(activation, gate + 4 * whole, count - whole, scratch)
            for i in range(whole, count):
                poke_f32(out + 4 * i, peek_f32(scratch + 4 * (i - whole)))

    return make_kernel(piece)


@inline
def activate_rest(activation, x, count, scratch):
    """Fewer values than lanes, into scratch."""
    for i in range(count):
        poke_f32(scratch + 4 * i, peek_f32(x + 4 * i))
    store_f32(scratch, activation(load_f32(scratch)))


@inline
def limited_piece(gate, up, out, count, scratch, args):
    """min(silu(gate), limit) * clamp(up, -limit, limit)."""
    limit, whole = peek_f32(args + GATED.limit), count - count % LANES
    for i in range(0, whole, LANES):
        store_f32(out + 4 * i, limit_both(load_f32(gate + 4 * i), load_f32(up + 4 * i), limit))
    for i in range(whole, count):  # one value in a register of its own
        value = limit_both(splat_f32(peek_f32(gate + 4 * i)), splat_f32(peek_f32(up + 4 * i)), limit)
        poke_f32(out + 4 * i, sum_f32(value) / LANES)


@inline
def limit_both(gate, up, limit):
    high, low, g = splat_f32(limit), splat_f32(0.0 - limit), silu(gate)
    g = select_lt(high, g, high, g)  # unlike minimum and maximum, a choice keeps NaN
    return g * select_lt(high, up, high, select_lt(up, low, low, up))


def make_kernel(piece):
    """Threads take runs of pieces of PIECE columns of a part."""

    def kernel(args, state, thread, threads):
        gate, up, out = peek_i64(args + GATED.gate), peek_i64(args + GATED.up), peek_i64(args + GATED.out)
        gate_stride, up_stride = peek_i64(args + GATED.gate_stride), peek_i64(args + GATED.up_stride)
        out_stride, width, parts = peek_i64(args + GATED.out_stride), peek_i64(args + GATED.width), peek_i64(args + GATED.parts)
        quantised, quantised_stride = peek_i64(args + GATED.bytes), peek_i64(args + GATED.bytes_stride)
        scratch = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
        order, rows = pairs_to_do(
            peek_i64(args + GATED.groups), peek_i64(args + GATED.experts), parts * peek_i64(state + STATE.tokens)
        )
        columns = width // parts
        pieces = (columns + PIECE - 1) // PIECE
        todo = pieces * rows
        run = max(1, todo // (SHARES * threads))  # of pieces that follow each other in memory
        if parts > 1:
            run = (run + pieces - 1) // pieces * pieces  # two threads that write bytes of one row are slow
        while True:
            start = run * atomic_add(peek_i64(args + GATED.counter), 1)
            if start >= todo:
                break
            for index in range(start, min(start + run, todo)):
                pair, at = index // pieces, index % pieces * PIECE
                if order:
                    pair = peek_i64(order + 8 * pair)
                t, first, count = pair // parts, pair % parts * columns + at, min(PIECE, columns - at)
                to = out + t * out_stride + 4 * first
                piece(gate + t * gate_stride + 4 * first, up + t * up_stride + 4 * first, to, count, scratch, args)
                if quantised:
                    quantise(to, quantised + pair * quantised_stride, columns, at, count)

    return kernel


def make_gated_parts(activation):
    """`kernel`: the same where each `part` columns share a gate. Threads share the tokens evenly."""

    def kernel(args, state, thread, threads):
        gate, up, out = peek_i64(args + GATED.gate), peek_i64(args + GATED.up), peek_i64(args + GATED.out)
        width, part = peek_i64(args + GATED.width), peek_i64(args + GATED.part)
        tokens, whole = peek_i64(state + STATE.tokens), part - part % LANES
        for t in range(tokens * thread // threads, tokens * (thread + 1) // threads):
            for index in range(width // part):
                factor = activation(splat_f32(peek_f32(gate + t * peek_i64(args + GATED.gate_stride) + 4 * index)))
                one = sum_f32(factor) / LANES
                x = up + t * peek_i64(args + GATED.up_stride) + 4 * part * index
                to = out + t * peek_i64(args + GATED.out_stride) + 4 * part * index
                for i in range(0, whole, LANES):
                    store_f32(to + 4 * i, factor * load_f32(x + 4 * i))
                for i in range(whole, part):
                    poke_f32(to + 4 * i, one * peek_f32(x + 4 * i))

    return kernel


def clamped(args, state, thread, threads):
    """out = g sigmoid(alpha g) (u + 1), g = min(gate, limit), u = clamp(up, -limit, limit): gpt-oss's activation."""
    gate, up, out = peek_i64(args + GATED.gate), peek_i64(args + GATED.up), peek_i64(args + GATED.out)
    alpha, limit, width = peek_f32(args + GATED.alpha), peek_f32(args + GATED.limit), peek_i64(args + GATED.width)
    scratch, parts = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES, peek_i64(args + GATED.parts)
    order, rows = pairs_to_do(peek_i64(args + GATED.groups), peek_i64(args + GATED.experts), parts * peek_i64(state + STATE.tokens))
    width = width // parts
    whole = width - width % LANES
    while True:
        pair = atomic_add(peek_i64(args + GATED.counter), 1)
        if pair >= rows:
            break
        if order:
            pair = peek_i64(order + 8 * pair)
        t, first = pair // parts, 4 * (pair % parts * width)
        g, u = gate + t * peek_i64(args + GATED.gate_stride) + first, up + t * peek_i64(args + GATED.up_stride) + first
        to = out + t * peek_i64(args + GATED.out_stride) + first
        for i in range(0, whole, LANES):
            store_f32(to + 4 * i, clamp_gate(load_f32(g + 4 * i), load_f32(u + 4 * i), alpha, limit))
        for i in range(whole, width):  # one value in a register of its own
            poke_f32(scratch, sum_f32(clamp_gate(splat_f32(peek_f32(g + 4 * i)), splat_f32(peek_f32(u + 4 * i)), alpha, limit)))
            poke_f32(to + 4 * i, peek_f32(scratch) / LANES)


@inline
def clamp_gate(gate, up, alpha, limit):
    high, low = splat_f32(limit), splat_f32(0.0 - limit)
    g = select_lt(high, gate, high, gate)  # unlike minimum and maximum, a choice keeps NaN
    u = select_lt(high, up, high, select_lt(up, low, low, up))
    return g * sigmoid(g * splat_f32(alpha)) * (u + splat_f32(1.0))


def scale_by_position(args, state, thread, threads):
    """x *= table[(position + offset) // length]. Threads share the tokens evenly."""
    width, tokens = peek_i64(args + SCALE.width), peek_i64(state + STATE.tokens)
    for t in range(tokens * thread // threads, tokens * (thread + 1) // threads):
        position = peek_i32(peek_i64(state + STATE.positions) + 4 * t) + peek_i64(args + SCALE.offset)
        factor = peek_f32(peek_i64(args + SCALE.table) + 4 * (position // peek_i64(args + SCALE.length)))
        x = peek_i64(args + SCALE.x) + t * peek_i64(args + SCALE.x_stride)
        for c in range(width):
            poke_f32(x + 4 * c, peek_f32(x + 4 * c) * factor)


def copy_tails(args, state, thread, threads):
    """The columns of every head that a linear of heads leaves as they are. Threads share the tokens evenly."""
    width, tokens = peek_i64(args + TAILS.width), peek_i64(state + STATE.tokens)
    for t in range(tokens * thread // threads, tokens * (thread + 1) // threads):
        for head in range(peek_i64(args + TAILS.heads)):
            x = peek_i64(args + TAILS.x) + t * peek_i64(args + TAILS.x_stride) + head * peek_i64(args + TAILS.x_part)
            out = peek_i64(args + TAILS.out) + t * peek_i64(args + TAILS.out_stride) + head * peek_i64(args + TAILS.out_part)
            for c in range(width):
                value = peek_f32(x + peek_i64(args + TAILS.x_start) + 4 * c)
                poke_f32(out + peek_i64(args + TAILS.out_start) + 4 * c, value)


def split_heads(args, state, thread, threads):
    """Heads taken apart. Threads share (token, head) evenly."""
    heads, parts, widths = peek_i64(args + SPLIT.heads), peek_i64(args + SPLIT.parts), peek_i64(args + SPLIT.widths)
    todo, width = heads * peek_i64(state + STATE.tokens), 0
    for part in range(parts):
        width += peek_i64(widths + 24 * part)
    for index in range(todo * thread // threads, todo * (thread + 1) // threads):
        t, head = index // heads, index % heads
        x = peek_i64(args + SPLIT.x) + t * peek_i64(args + SPLIT.x_stride) + width * head
        for part in range(parts):
            size = peek_i64(widths + 24 * part)
            to = peek_i64(widths + 24 * part + 8) + t * peek_i64(widths + 24 * part + 16) + size * head
            whole = size - size % VECTOR_BYTES
            for at in range(0, whole, VECTOR_BYTES):
                store_f32(to + at, load_f32(x + at))
            for at in range(whole, size, 4):
                poke_f32(to + at, peek_f32(x + at))
            x += size


def combine(args, state, thread, threads):
    """out = sum over a of weights[a] * x[a], in the order of a, then + add; without the a whose id is -1, where there are ids.
    Threads share (token, 64 columns) evenly."""
    active, width = peek_i64(args + COMBINE.active), peek_i64(args + COMBINE.width)
    pieces = (width + 63) // 64
    todo = pieces * peek_i64(state + STATE.tokens)
    weights, add, ids = peek_i64(args + COMBINE.weights), peek_i64(args + COMBINE.add), peek_i64(args + COMBINE.ids)
    for index in range(todo * thread // threads, todo * (thread + 1) // threads):
        t, first = index // pieces, index % pieces * 64
        last = min(first + 64, width)
        x = peek_i64(args + COMBINE.x) + t * peek_i64(args + COMBINE.x_stride)
        w = weights + t * peek_i64(args + COMBINE.weights_stride)
        out = peek_i64(args + COMBINE.out) + t * peek_i64(args + COMBINE.out_stride)
        more = add + t * peek_i64(args + COMBINE.add_stride)
        chosen = ids + t * peek_i64(args + COMBINE.ids_stride)
        whole = first + (last - first) // LANES * LANES
        for c in range(first, whole, LANES):
            total = splat_f32(0.0)
            for a in range(active):
                if ids == 0 or peek_i32(chosen + 4 * a) >= 0:
                    factor = splat_f32(peek_f32(w + 4 * a) if weights else 1.0)
                    total = fma(factor, load_f32(x + 4 * (a * width + c)), total)
            store_f32(out + 4 * c, total + load_f32(more + 4 * c) if add else total)
        for c in range(whole, last):
            rest = 0.0
            for a in range(active):
                if ids == 0 or peek_i32(chosen + 4 * a) >= 0:
                    rest = fma1(peek_f32(w + 4 * a) if weights else 1.0, peek_f32(x + 4 * (a * width + c)), rest)
            poke_f32(out + 4 * c, rest + peek_f32(more + 4 * c) if add else rest)


limited = make_kernel(limited_piece)
gated_silu = make_gated(silu)
gated_gelu_tanh = make_gated(gelu_tanh)
gated_sigmoid = make_gated(sigmoid)
gated_none = make_gated(plain)
parts_silu = make_gated_parts(silu)
parts_gelu_tanh = make_gated_parts(gelu_tanh)
parts_sigmoid = make_gated_parts(sigmoid)
parts_none = make_gated_parts(plain)
single_relu2, single_silu, single_sigmoid = make_single(relu2), make_single(silu), make_single(sigmoid)
single_gelu, single_gelu_tanh, single_softplus = make_single(gelu), make_single(gelu_tanh), make_single(softplus)


def scale_and_cap(args, state, thread, threads):
    """Logits x (R, V) times a scale, then limit * tanh(x / limit) where there is a limit. Rows are padded to whole registers."""
    x, width = peek_i64(args + CAP.x), peek_i64(args + CAP.width)
    scale, limit = peek_f32(args + CAP.scale), peek_f32(args + CAP.limit)
    total = width * peek_i64(state + STATE.outputs)
    pieces = (total + 4095) // 4096
    while True:
        index = atomic_add(peek_i64(args + CAP.counter), 1)
        if index >= pieces:
            break
        for i in range(4096 * index, min(4096 * (index + 1), total), LANES):
            v = load_f32(x + 4 * i) * splat_f32(scale)
            if limit > 0:
                v = splat_f32(limit) * tanh(v / splat_f32(limit))
            store_f32(x + 4 * i, v)
