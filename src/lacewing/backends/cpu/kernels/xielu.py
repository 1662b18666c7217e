"""xIELU: an activation with constants of its own. Semantics: program/ops.py, Activation."""

from lacewing.backends.cpu.arguments import GATED, SCRATCH_BYTES, STATE
from lacewing.backends.cpu.kernels.quants.activations import quantise_parts
from lacewing.backends.cpu.kernels.simd.functions import exp
from lacewing.backends.cpu.kernels.simd.instructions import load_f32, peek_f32, peek_i64, poke_f32, select_lt, splat_f32, store_f32
from lacewing.backends.cpu.kernels.simd.registers import LANES, inline

PIECE = 256  # columns that are treated at once


@inline
def activate(x, args):
    zero, eps = splat_f32(0.0), splat_f32(peek_f32(args + GATED.eps))
    above = splat_f32(peek_f32(args + GATED.positive)) * x * x
    below = splat_f32(peek_f32(args + GATED.negative)) * (exp(select_lt(x, eps, x, eps)) - splat_f32(1.0) - x)
    return select_lt(zero, x, above, below) + splat_f32(peek_f32(args + GATED.beta)) * x


def xielu(args, state, thread, threads):
    """Threads share (token, PIECE columns) evenly; what the next linear wants is quantised."""
    width, quantised = peek_i64(args + GATED.width), peek_i64(args + GATED.bytes)
    scratch = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
    pieces = (width + PIECE - 1) // PIECE
    todo = pieces * peek_i64(state + STATE.tokens)
    for index in range(todo * thread // threads, todo * (thread + 1) // threads):
        t, first = index // pieces, index % pieces * PIECE
        count = min(PIECE, width - first)
        x = peek_i64(args + GATED.gate) + t * peek_i64(args + GATED.gate_stride) + 4 * first
        out = peek_i64(args + GATED.out) + t * peek_i64(args + GATED.out_stride) + 4 * first
        whole = count - count % LANES
        for i in range(0, whole, LANES):
            store_f32(out + 4 * i, activate(load_f32(x + 4 * i), args))
        if whole < count:  # the rest by way of a full register
            for i in range(whole, count):
                poke_f32(scratch + 4 * (i - whole), peek_f32(x + 4 * i))
            store_f32(scratch, activate(load_f32(scratch), args))
            for i in range(whole, count):
                poke_f32(out + 4 * i, peek_f32(scratch + 4 * (i - whole)))
        if quantised:
            stride, parts = peek_i64(args + GATED.bytes_stride), peek_i64(args + GATED.parts)
            quantise_parts(out, quantised + t * parts * stride, stride, parts, width, first, count)
