"""Ops that treat every column alike: the gated activation, the soft-cap of logits."""

from lacewing.backends.cpu.arguments import CAP, GATED, SCRATCH_BYTES, STATE
from lacewing.backends.cpu.kernels.activations import quantise
from lacewing.backends.cpu.kernels.functions import gelu_tanh, sigmoid, tanh
from lacewing.backends.cpu.kernels.simd import (
    LANES,
    atomic_add,
    inline,
    load_f32,
    peek_f32,
    peek_i64,
    poke_f32,
    splat_f32,
    store_f32,
)

PIECE = 256  # columns that a thread takes at once


@inline
def silu(x):
    return x * sigmoid(x)


def make_gated(activation):
    """`kernel`: out = activation(gate) * up, quantised for the next linear where asked."""

    @inline
    def piece(gate, up, out, count, scratch):
        whole = count - count % LANES
        for i in range(0, whole, LANES):
            store_f32(out + 4 * i, activation(load_f32(gate + 4 * i)) * load_f32(up + 4 * i))
        if whole < count:  # the rest by way of a full register
            for i in range(whole, count):
                poke_f32(scratch + 4 * (i - whole), peek_f32(gate + 4 * i))
            store_f32(scratch, activation(load_f32(scratch)))
            for i in range(whole, count):
                poke_f32(out + 4 * i, peek_f32(scratch + 4 * (i - whole)) * peek_f32(up + 4 * i))

    def kernel(args, state, thread, threads):
        gate, up, out = peek_i64(args + GATED.gate), peek_i64(args + GATED.up), peek_i64(args + GATED.out)
        gate_stride, up_stride = peek_i64(args + GATED.gate_stride), peek_i64(args + GATED.up_stride)
        out_stride, width = peek_i64(args + GATED.out_stride), peek_i64(args + GATED.width)
        quantised, quantised_stride = peek_i64(args + GATED.bytes), peek_i64(args + GATED.bytes_stride)
        scratch = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
        pieces = (width + PIECE - 1) // PIECE
        todo = pieces * peek_i64(state + STATE.tokens)
        while True:
            index = atomic_add(peek_i64(args + GATED.counter), 1)
            if index >= todo:
                break
            t, first = index // pieces, index % pieces * PIECE
            count = min(PIECE, width - first)
            to = out + t * out_stride + 4 * first
            piece(gate + t * gate_stride + 4 * first, up + t * up_stride + 4 * first, to, count, scratch)
            if quantised:
                quantise(to, quantised + t * quantised_stride, width, first, count)

    return kernel


gated_silu = make_gated(silu)
gated_gelu_tanh = make_gated(gelu_tanh)


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
