"""From file blocks to tiles: Q2_K and Q3_K (super-blocks of 256 with two low bits a value). Layouts: quants/q2_k.py, q3_k.py."""

from lacewing.backends.cpu.kernels.registers import VECTOR_BYTES, inline
from lacewing.backends.cpu.kernels.simd import (
    high_f16,
    load_i32,
    low_f16,
    shift_left,
    shift_right,
    splat_f32,
    splat_i32,
    store_f32,
    store_i32,
    to_f32,
)
from lacewing.backends.cpu.kernels.tile import MINIMA, SCALES, SCRATCH
from lacewing.backends.cpu.kernels.transpose import transpose1, transpose4


def unpack_q2_k(source, stride, tile, blocks):
    """True bytes; 16 sub-blocks of 16 columns with a minimum each."""
    scratch = tile + SCRATCH
    pair, low4 = splat_i32(0x03030303), splat_i32(15)
    for part in range(4):  # half part // 2 of the block, columns 16 * (part % 2) of each of its four 32s
        transpose4(source + 16 + 16 * part, stride, scratch)
        target = tile + VECTOR_BYTES * (32 * (part // 2) + 4 * (part % 2))
        for w in range(4):
            q = load_i32(scratch + VECTOR_BYTES * w)
            for j in range(4):
                store_i32(target + VECTOR_BYTES * (8 * j + w), shift_right(q, 2 * j) & pair)
    head = transpose1(source + 80, stride)
    d, dmin = low_f16(head), splat_f32(0.0) - high_f16(head)
    transpose4(source, stride, scratch)
    for w in range(4):
        both = load_i32(scratch + VECTOR_BYTES * w)
        for k in range(4):
            at = VECTOR_BYTES * (4 * w + k)
            store_f32(tile + SCALES + at, d * to_f32(shift_right(both, 8 * k) & low4))
            store_f32(tile + MINIMA + at, dmin * to_f32(shift_right(both, 8 * k + 4) & low4))


def unpack_q3_k(source, stride, tile, blocks):
    """Bytes are the true value + 4; 16 sub-blocks of 16 columns."""
    scratch = tile + SCRATCH
    high = scratch + 4 * VECTOR_BYTES
    transpose4(source, stride, high)
    transpose4(source + 16, stride, high + 4 * VECTOR_BYTES)
    pair, one = splat_i32(0x03030303), splat_i32(0x01010101)
    for part in range(4):
        transpose4(source + 32 + 16 * part, stride, scratch)
        target = tile + VECTOR_BYTES * (32 * (part // 2) + 4 * (part % 2))
        for w in range(4):
            q, h = load_i32(scratch + VECTOR_BYTES * w), load_i32(high + VECTOR_BYTES * (4 * (part % 2) + w))
            for j in range(4):
                third = shift_left(shift_right(h, 4 * (part // 2) + j) & one, 2)
                store_i32(target + VECTOR_BYTES * (8 * j + w), (shift_right(q, 2 * j) & pair) | third)
    q3_scales(source, stride, tile)


@inline
def q3_scales(source, stride, tile):
    """Sixteen 6-bit scales in 12 bytes, and d behind them."""
    scratch = tile + SCRATCH
    d = high_f16(transpose1(source + 106, stride))
    transpose4(source + 92, stride, scratch)  # its first word belongs to the values
    top = load_i32(scratch + 3 * VECTOR_BYTES)
    low4, low2, offset = splat_i32(15), splat_i32(3), splat_i32(32)
    for quarter in range(4):  # scales 4 * quarter + k
        low = load_i32(scratch + VECTOR_BYTES * (1 + quarter % 2))
        for k in range(4):
            low_bits = shift_right(low, 8 * k + 4 * (quarter // 2)) & low4
            high_bits = shift_left(shift_right(top, 8 * k + 2 * quarter) & low2, 4)
            scale = d * to_f32((low_bits | high_bits) - offset)
            store_f32(tile + SCALES + VECTOR_BYTES * (4 * quarter + k), scale)
