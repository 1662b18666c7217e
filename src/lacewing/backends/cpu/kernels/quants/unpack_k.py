"""From file blocks to tiles: Q2_K to Q6_K (super-blocks of 256). Layouts: quants/q2_k.py and so on."""

from lacewing.backends.cpu.kernels.gemm.dot import MINS, SCALES, SCRATCH
from lacewing.backends.cpu.kernels.simd.instructions import (
    arithmetic_right,
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
from lacewing.backends.cpu.kernels.simd.registers import VECTOR_BYTES, inline
from lacewing.backends.cpu.kernels.simd.transpose import nibbles64, transpose1, transpose4, transpose8


@inline
def scales_and_mins(source, stride, tile):
    """The head of a Q4_K or Q5_K block: float16 d and dmin, then eight 6-bit scales and mins in 12 bytes."""
    scratch = tile + SCRATCH
    transpose4(source, stride, scratch)
    heads = load_i32(scratch)
    d, dmin = low_f16(heads), splat_f32(0.0) - high_f16(heads)
    s0, s1, s2 = load_i32(scratch + VECTOR_BYTES), load_i32(scratch + 2 * VECTOR_BYTES), load_i32(scratch + 3 * VECTOR_BYTES)
    low6, low4, top2 = splat_i32(63), splat_i32(15), splat_i32(48)
    for b in range(4):
        at = VECTOR_BYTES * b
        store_f32(tile + SCALES + at, d * to_f32(shift_right(s0, 8 * b) & low6))
        store_f32(tile + MINS + at, dmin * to_f32(shift_right(s1, 8 * b) & low6))
        both = shift_right(s2, 8 * b)
        scale = (both & low4) | (shift_right(s0, 8 * b + 2) & top2)
        minimum = (shift_right(both, 4) & low4) | (shift_right(s1, 8 * b + 2) & top2)
        store_f32(tile + SCALES + at + 4 * VECTOR_BYTES, d * to_f32(scale))
        store_f32(tile + MINS + at + 4 * VECTOR_BYTES, dmin * to_f32(minimum))


def unpack_q4_k(source, stride, tile, blocks):
    scales_and_mins(source, stride, tile)
    nibbles64(source + 16, stride, tile)
    nibbles64(source + 80, stride, tile + 32 * VECTOR_BYTES)


def unpack_q5_k(source, stride, tile, blocks):
    scales_and_mins(source, stride, tile)
    nibbles64(source + 48, stride, tile)
    nibbles64(source + 112, stride, tile + 32 * VECTOR_BYTES)
    high = tile + SCRATCH
    transpose8(source + 16, stride, high)
    fifth = splat_i32(0x10101010)
    for w in range(8):
        h = load_i32(high + VECTOR_BYTES * w)
        for b in range(8):  # bit b of every byte to bit 4: sub-block b
            at = tile + VECTOR_BYTES * (8 * b + w)
            bit = shift_left(h, 4 - b) if b < 4 else shift_right(h, b - 4)
            store_i32(at, load_i32(at) | (bit & fifth))


def unpack_q6_k(source, stride, tile, blocks):
    """Bytes are the true value + 32; 16 sub-blocks of 16 columns."""
    scratch = tile + SCRATCH
    high = scratch + 4 * VECTOR_BYTES
    nibble, top = splat_i32(0x0F0F0F0F), splat_i32(0x30303030)
    for part in range(4):  # half h = part // 2 of the block, columns 16 * (part % 2) of each of its four 32s
        at = 64 * (part // 2) + 16 * (part % 2)
        transpose4(source + 128 + 32 * (part // 2) + 16 * (part % 2), stride, high)
        target = tile + VECTOR_BYTES * (32 * (part // 2) + 4 * (part % 2))
        transpose4(source + at, stride, scratch)
        for w in range(4):
            q, h = load_i32(scratch + VECTOR_BYTES * w), load_i32(high + VECTOR_BYTES * w)
            store_i32(target + VECTOR_BYTES * w, (q & nibble) | (shift_left(h, 4) & top))
            store_i32(target + VECTOR_BYTES * (w + 16), (shift_right(q, 4) & nibble) | (h & top))
        transpose4(source + at + 32, stride, scratch)
        for w in range(4):
            q, h = load_i32(scratch + VECTOR_BYTES * w), load_i32(high + VECTOR_BYTES * w)
            store_i32(target + VECTOR_BYTES * (w + 8), (q & nibble) | (shift_left(h, 2) & top))
            store_i32(target + VECTOR_BYTES * (w + 24), (shift_right(q, 4) & nibble) | (shift_right(h, 2) & top))
    transpose4(source + 192, stride, scratch)
    transpose4(source + 194, stride, high)  # its last two bytes are d
    d = high_f16(load_i32(high + 3 * VECTOR_BYTES))
    for w in range(4):
        scales = load_i32(scratch + VECTOR_BYTES * w)
        for k in range(4):  # sign-extend byte k
            signed = shift_left(scales, 24 - 8 * k)
            store_f32(tile + SCALES + VECTOR_BYTES * (4 * w + k), d * to_f32(arithmetic_right(signed, 24)))


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
            store_f32(tile + MINS + at, dmin * to_f32(shift_right(both, 8 * k + 4) & low4))


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
