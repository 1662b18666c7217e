"""RMS norm and LayerNorm, with the residual add before it and the quantisation for the next linear after it."""

from lacewing.backends.cpu.arguments import NORM, STATE
from lacewing.backends.cpu.kernels.quants.activations import quantise
from lacewing.backends.cpu.kernels.simd.instructions import (
    fma,
    fma1,
    load_f32,
    peek_f32,
    peek_i64,
    poke_f32,
    splat_f32,
    sqrt1,
    store_f32,
    sum_f32,
)
from lacewing.backends.cpu.kernels.simd.registers import LANES, inline


@inline
def add_to(x, y, width, scale):
    """x += scale * y."""
    whole = width - width % LANES
    many = splat_f32(scale)
    for i in range(0, whole, LANES):
        store_f32(x + 4 * i, load_f32(x + 4 * i) + many * load_f32(y + 4 * i))
    for i in range(whole, width):
        poke_f32(x + 4 * i, peek_f32(x + 4 * i) + scale * peek_f32(y + 4 * i))


@inline
def mean_of(x, width):
    """The order of the sum is fixed by LANES."""
    whole = width - width % LANES
    sums = splat_f32(0.0)
    for i in range(0, whole, LANES):
        sums = sums + load_f32(x + 4 * i)
    total = sum_f32(sums)
    for i in range(whole, width):
        total += peek_f32(x + 4 * i)
    return total / width


@inline
def normalise(x, weight, bias, out, width, eps, centred):
    """out = y / sqrt(mean(y^2) + eps) * weight + bias, one head; y = x, less its mean if `centred`. weight, bias 0: none.

    The sum's order is fixed by LANES.
    """
    whole = width - width % LANES
    mean = mean_of(x, width) if centred else 0.0
    shift = splat_f32(mean)
    squares = splat_f32(0.0)
    for i in range(0, whole, LANES):
        v = load_f32(x + 4 * i) - shift
        squares = fma(v, v, squares)
    total = sum_f32(squares)
    for i in range(whole, width):
        rest = peek_f32(x + 4 * i) - mean
        total = fma1(rest, rest, total)
    factor = 1.0 / sqrt1(total / width + eps)
    many = splat_f32(factor)
    if weight:
        for i in range(0, whole, LANES):
            store_f32(out + 4 * i, (load_f32(x + 4 * i) - shift) * many * load_f32(weight + 4 * i))
        for i in range(whole, width):
            poke_f32(out + 4 * i, (peek_f32(x + 4 * i) - mean) * factor * peek_f32(weight + 4 * i))
    else:
        for i in range(0, whole, LANES):
            store_f32(out + 4 * i, (load_f32(x + 4 * i) - shift) * many)
        for i in range(whole, width):
            poke_f32(out + 4 * i, (peek_f32(x + 4 * i) - mean) * factor)
    if bias:
        add_to(out, bias, width, 1.0)


def norm(args, state, thread, threads):
    """Threads share the tokens evenly."""
    x, x_stride = peek_i64(args + NORM.x), peek_i64(args + NORM.x_stride)
    out, out_stride = peek_i64(args + NORM.out), peek_i64(args + NORM.out_stride)
    heads, weight, eps = peek_i64(args + NORM.heads), peek_i64(args + NORM.weight), peek_f32(args + NORM.eps)
    bias, centred = peek_i64(args + NORM.bias), peek_i64(args + NORM.centred)
    weight_step = peek_i64(args + NORM.weight_step)  # from one head's to the next
    add, add_stride = peek_i64(args + NORM.add), peek_i64(args + NORM.add_stride)
    add_scale = peek_f32(args + NORM.add_scale)
    quantised, quantised_stride = peek_i64(args + NORM.bytes), peek_i64(args + NORM.bytes_stride)
    width, tokens = peek_i64(args + NORM.width), peek_i64(state + STATE.tokens)
    for t in range(tokens * thread // threads, tokens * (thread + 1) // threads):
        if add:
            add_to(x + t * x_stride, add + t * add_stride, width * heads, add_scale)
        for head in range(heads):
            at = 4 * width * head
            to = out + t * out_stride + at
            normalise(x + t * x_stride + at, weight + head * weight_step, bias, to, width, eps, centred)
        if quantised:
            quantise(out + t * out_stride, quantised + t * quantised_stride, width * heads, 0, width * heads)
