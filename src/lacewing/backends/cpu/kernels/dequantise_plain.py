"""Doubles and integers to float32: `kernel(source, blocks, target, _)`, one value a block."""

from numba import float32

from lacewing.backends.cpu.kernels.simd import peek_f64, peek_i8, peek_i32, peek_i64, peek_u16, poke_f32


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
