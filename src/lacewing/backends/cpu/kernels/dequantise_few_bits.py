"""TQ1_0, TQ2_0, Q1_0, Q2_0 and NVFP4 to float32: `kernel(source, blocks, target, _)`. Layouts: quants/tq1_0.py and so on."""

from numba import float32

from lacewing.backends.cpu.kernels.lookup import make_table
from lacewing.backends.cpu.kernels.simd import inline, peek_f16, peek_f32, peek_i8, peek_u8, poke_f32
from lacewing.quants import mxfp4, nvfp4

small_floats, small_scales = make_table(mxfp4.VALUES), make_table(nvfp4.SCALES)


@inline
def trits(field, count, digits, d, target):
    """`digits` ternary digits of `count` bytes, the first digit of all bytes first."""
    power = 1
    for n in range(digits):
        for l in range(count):
            digit = (peek_u8(field + l) * power & 255) * 3 >> 8
            poke_f32(target + 4 * (count * n + l), d * float32(digit - 1))
        power *= 3


def dequantise_tq1_0(source, blocks, target, _):
    for _block in range(blocks):
        d = peek_f16(source + 52)
        trits(source, 32, 5, d, target)
        trits(source + 32, 16, 5, d, target + 640)
        trits(source + 48, 4, 4, d, target + 960)
        source += 54
        target += 1024


def dequantise_tq2_0(source, blocks, target, _):
    for _block in range(blocks):
        d = peek_f16(source + 64)
        for part in range(8):  # half part // 4, two bits part % 4
            for l in range(32):
                q = peek_u8(source + 32 * (part // 4) + l) >> 2 * (part % 4) & 3
                poke_f32(target + 4 * l, d * float32(q - 1))
            target += 128
        source += 66


def dequantise_q1_0(source, blocks, target, _):
    for _block in range(blocks):
        d = peek_f16(source)
        for i in range(128):
            poke_f32(target + 4 * i, d if peek_u8(source + 2 + i // 8) >> i % 8 & 1 else -d)
        source += 18
        target += 512


def dequantise_q2_0(source, blocks, target, _):
    for _block in range(blocks):
        d = peek_f16(source)
        for i in range(64):
            q = peek_u8(source + 2 + i // 4) >> 2 * (i % 4) & 3
            poke_f32(target + 4 * i, d * float32(q - 1))
        source += 18
        target += 256


def dequantise_nvfp4(source, blocks, target, _):
    values, scales = small_floats(), small_scales()
    for _block in range(blocks):
        for r in range(4):
            scale = peek_f32(scales + 4 * peek_u8(source + r))
            for l in range(8):
                q = peek_u8(source + 4 + 8 * r + l)
                poke_f32(target + 4 * l, scale * float32(peek_i8(values + (q & 15))))
                poke_f32(target + 4 * (l + 8), scale * float32(peek_i8(values + (q >> 4))))
            target += 64
        source += 36
