"""TQ1_0, TQ2_0, Q1_0, Q2_0, NVFP4, doubles and integers to float32: `kernel(source, blocks, target, _)`.

Layouts: quants/tq1_0.py and so on.
"""

from numba import float32

from lacewing.backends.cpu.kernels.quants.dequantise_8 import bits_in_order, pair_8, pairs_in_order, small_float_8, ternary_8
from lacewing.backends.cpu.kernels.quants.lookup import make_table
from lacewing.backends.cpu.kernels.simd.instructions import (
    peek_f16,
    peek_f32,
    peek_f64,
    peek_i8,
    peek_i32,
    peek_i64,
    peek_u8,
    peek_u16,
    poke_f32,
)
from lacewing.backends.cpu.kernels.simd.registers import inline
from lacewing.quants import nvfp4

small_scales = make_table(nvfp4.SCALES)


@inline
def trits(field, count, d, target):
    """Five ternary digits of `count` bytes, the first digit of all bytes first."""
    power = 1
    for _n in range(5):
        for l in range(0, count, 8):
            ternary_8(field + l, power, d, target + 4 * l)
        target += 4 * count
        power *= 3


def dequantise_tq1_0(source, blocks, target, _):
    for _block in range(blocks):
        d = peek_f16(source + 52)
        trits(source, 32, d, target)
        trits(source + 32, 16, d, target + 640)
        power = 1
        for n in range(4):
            for l in range(4):
                digit = (peek_u8(source + 48 + l) * power & 255) * 3 >> 8
                poke_f32(target + 960 + 16 * n + 4 * l, d * float32(digit - 1))
            power *= 3
        source += 54
        target += 1024


def dequantise_tq2_0(source, blocks, target, _):
    for _block in range(blocks):
        d = peek_f16(source + 64)
        for part in range(8):  # half part // 4, pair of bits part % 4
            for l in range(0, 32, 8):
                pair_8(source + 32 * (part // 4) + l, 2 * (part % 4), d, target)
                target += 32
        source += 66


def dequantise_q1_0(source, blocks, target, _):
    for _block in range(blocks):
        d = peek_f16(source)
        for k in range(16):
            bits_in_order(peek_u8(source + 2 + k), d, target)
            target += 32
        source += 18


def dequantise_q2_0(source, blocks, target, _):
    for _block in range(blocks):
        d = peek_f16(source)
        for k in range(8):
            pairs_in_order(peek_u16(source + 2 + 2 * k), d, target)
            target += 32
        source += 18


def dequantise_nvfp4(source, blocks, target, _):
    scales = small_scales()
    for _block in range(blocks):
        for r in range(4):
            scale = peek_f32(scales + 4 * peek_u8(source + r))
            small_float_8(source + 4 + 8 * r, 0, scale, target)
            small_float_8(source + 4 + 8 * r, 4, scale, target + 32)
            target += 64
        source += 36


def dequantise_f64(source, blocks, target, _):
    for i in range(blocks):
        poke_f32(target + 4 * i, float32(peek_f64(source + 8 * i)))


def dequantise_i8(source, blocks, target, _):
    for i in range(blocks):
        poke_f32(target + 4 * i, float32(peek_i8(source + i)))


def dequantise_i16(source, blocks, target, _):
    for i in range(blocks):
        poke_f32(target + 4 * i, float32((peek_u16(source + 2 * i) ^ 0x8000) - 0x8000))


def dequantise_i32(source, blocks, target, _):
    for i in range(blocks):
        poke_f32(target + 4 * i, float32(peek_i32(source + 4 * i)))


def dequantise_i64(source, blocks, target, _):
    for i in range(blocks):
        poke_f32(target + 4 * i, float32(peek_i64(source + 8 * i)))
