"""A short causal convolution along positions, column by column; what it remembers of a sequence is a unit of a fixed state."""

from numba import float32

from lacewing.backends.cpu.arguments import CONVOLVE, STATE
from lacewing.backends.cpu.kernels.simd.instructions import load_f32, peek_f32, peek_i32, peek_i64, poke_f32, splat_f32, store_f32
from lacewing.backends.cpu.kernels.simd.registers import LANES, inline


@inline
def seen_at(args, x, unit, place, before, column):
    """Address of a column, `place` tokens after the first of a row's; below 0 in the unit, 0 for none."""
    if place >= 0:
        return x + place * peek_i64(args + CONVOLVE.x_stride) + 4 * column
    if unit == 0:
        return 0
    return unit + 4 * ((before + place) * peek_i64(args + CONVOLVE.width) + column)


@inline
def copy_columns(source, to, first, end):
    for c in range(end - first):
        poke_f32(to + 4 * c, peek_f32(source + 4 * c) if source else float32(0))


@inline
def convolve(args, x, out, unit, place, first, end):
    """One token, columns `first` to `end`: products in the order of positions, then the bias."""
    taps, width = peek_i64(args + CONVOLVE.taps), peek_i64(args + CONVOLVE.width)
    weight, bias = peek_i64(args + CONVOLVE.weight), peek_i64(args + CONVOLVE.bias)
    to = out + place * peek_i64(args + CONVOLVE.out_stride)
    whole = first + (end - first) // LANES * LANES
    for c in range(first, whole, LANES):
        total = splat_f32(0.0)
        for tap in range(taps):
            source = seen_at(args, x, unit, place + tap - taps + 1, taps - 1, c)
            if source:
                total = total + load_f32(weight + 4 * (width * tap + c)) * load_f32(source)
        store_f32(to + 4 * c, total + load_f32(bias + 4 * c) if bias else total)
    for c in range(whole, end):
        last = float32(0)
        for tap in range(taps):
            source = seen_at(args, x, unit, place + tap - taps + 1, taps - 1, c)
            if source:
                last += peek_f32(weight + 4 * (width * tap + c)) * peek_f32(source)
        poke_f32(to + 4 * c, last + peek_f32(bias + 4 * c) if bias else last)


def short_convolution(args, state, thread, threads):
    """Threads share the columns evenly. The unit is written before the output, and tokens come last first: out may be x."""
    width, before = peek_i64(args + CONVOLVE.width), peek_i64(args + CONVOLVE.taps) - 1
    registers = (width + LANES - 1) // LANES
    first, end = registers * thread // threads * LANES, min(width, registers * (thread + 1) // threads * LANES)
    tokens, rows = peek_i64(state + STATE.tokens), peek_i64(state + STATE.rows)
    units, unit_bytes = peek_i64(args + CONVOLVE.units), peek_i64(args + CONVOLVE.unit_bytes)
    token = 0
    while token < tokens:
        row, count = peek_i32(rows + 4 * token), 1
        while token + count < tokens and peek_i32(rows + 4 * (token + count)) == row:
            count += 1
        x = peek_i64(args + CONVOLVE.x) + token * peek_i64(args + CONVOLVE.x_stride)
        out = peek_i64(args + CONVOLVE.out) + token * peek_i64(args + CONVOLVE.out_stride)
        index = peek_i32(peek_i64(args + CONVOLVE.units_in) + 4 * row)
        unit = units + index * unit_bytes if index >= 0 else 0
        to = units + peek_i32(peek_i64(args + CONVOLVE.units_out) + 4 * row) * unit_bytes
        for place in range(before):
            source = seen_at(args, x, unit, count - before + place, before, first)
            copy_columns(source, to + 4 * (place * width + first), first, end)
        for place in range(count):
            convolve(args, x, out, unit, count - 1 - place, first, end)
        token += count
