"""The IQ1, IQ2 and IQ3 types to float32: `kernel(source, blocks, target, _)`. Layouts: quants/iq1_s.py and so on."""

from numba import float32, types

from lacewing.backends.cpu.kernels.quants.dequantise_8 import shifted_8, signed_8, signed_quads
from lacewing.backends.cpu.kernels.quants.lookup import make_table
from lacewing.backends.cpu.kernels.simd.instructions import peek_f16, peek_i32, peek_u8, peek_u16
from lacewing.backends.cpu.kernels.simd.registers import F16, F32, I16, inline, instruction
from lacewing.quants import grids

grid_iq1_s = make_table(grids.IQ1_S)


@instruction(types.float32, types.int64)
def f16_of_bits(b, bits):
    """The float16 with these bits, widened."""
    return b.fpext(b.bitcast(b.trunc(bits, I16), F16), F32)


def dequantise_iq1_s(source, blocks, target, _):
    grid = grid_iq1_s()
    for _block in range(blocks):
        d = peek_f16(source)
        for g in range(8):
            h = peek_u16(source + 34 + 2 * g)
            scale = float32(d * float32(2 * (h >> 12 & 7) + 1))
            shift = float32(-0.125) if h & 0x8000 else float32(0.125)
            for l in range(4):
                row = peek_u8(source + 2 + 4 * g + l) + ((h >> 3 * l & 7) << 8)
                shifted_8(grid + 8 * row, shift, scale, target)
                target += 32
        source += 50


def dequantise_iq1_m(source, blocks, target, _):
    grid = grid_iq1_s()
    for _block in range(blocks):
        bits = 0
        for j in range(4):
            bits |= peek_u16(source + 48 + 2 * j) >> 12 << 4 * j
        d = f16_of_bits(bits)
        for k in range(32):
            nibble = peek_u8(source + 32 + k // 2) >> 4 * (k % 2) & 15
            row = peek_u8(source + k) + ((nibble & 7) << 8)
            scale = float32(d * float32(2 * (peek_u16(source + 48 + k // 8 * 2) >> 3 * (k // 2 % 4) & 7) + 1))
            shifted_8(grid + 8 * row, float32(-0.125) if nibble & 8 else float32(0.125), scale, target)
            target += 32
        source += 56


grid_iq2_xxs, grid_iq2_xs, grid_iq2_s = make_table(grids.IQ2_XXS), make_table(grids.IQ2_XS), make_table(grids.IQ2_S)
sign_bytes = make_table(grids.SIGNS)


def dequantise_iq2_xxs(source, blocks, target, _):
    grid, signs = grid_iq2_xxs(), sign_bytes()
    for _block in range(blocks):
        d = peek_f16(source)
        for g in range(8):
            at = source + 2 + 8 * g
            word = peek_i32(at + 4)
            scale = float32(d * float32(0.5 + (word >> 28 & 15)) * float32(0.25))
            for l in range(4):
                signed_8(grid + 8 * peek_u8(at + l), peek_u8(signs + (word >> 7 * l & 127)), scale, target)
                target += 32
        source += 66


@inline
def nibble_scale(d, field, k):
    """Of group k of eight values: two groups share a nibble."""
    nibble = peek_u8(field + k // 4) >> 4 * (k // 2 % 2) & 15
    return float32(d * float32(0.5 + nibble) * float32(0.25))


def dequantise_iq2_xs(source, blocks, target, _):
    grid, signs = grid_iq2_xs(), sign_bytes()
    for _block in range(blocks):
        d = peek_f16(source)
        for k in range(32):
            q = peek_u16(source + 2 + 2 * k)
            signed_8(grid + 8 * (q & 511), peek_u8(signs + (q >> 9)), nibble_scale(d, source + 66, k), target)
            target += 32
        source += 74


def dequantise_iq2_s(source, blocks, target, _):
    grid = grid_iq2_s()
    for _block in range(blocks):
        d = peek_f16(source)
        for k in range(32):
            row = peek_u8(source + 2 + k) + ((peek_u8(source + 66 + k // 4) >> 2 * (k % 4) & 3) << 8)
            signed_8(grid + 8 * row, peek_u8(source + 34 + k), nibble_scale(d, source + 74, k), target)
            target += 32
        source += 82


grid_iq3_xxs, grid_iq3_s, sign_bytes = make_table(grids.IQ3_XXS), make_table(grids.IQ3_S), make_table(grids.SIGNS)


def dequantise_iq3_xxs(source, blocks, target, _):
    grid, signs = grid_iq3_xxs(), sign_bytes()
    for _block in range(blocks):
        d = peek_f16(source)
        for g in range(8):
            word = peek_i32(source + 66 + 4 * g)
            scale = float32(d * float32(0.5 + (word >> 28 & 15)) * float32(0.5))
            for l in range(4):
                sign, q = peek_u8(signs + (word >> 7 * l & 127)), source + 2 + 8 * g + 2 * l
                signed_quads(grid + 4 * peek_u8(q), grid + 4 * peek_u8(q + 1), sign, scale, target)
                target += 32
        source += 98


def dequantise_iq3_s(source, blocks, target, _):
    grid = grid_iq3_s()
    for _block in range(blocks):
        d = peek_f16(source)
        for k in range(32):
            nibble = peek_u8(source + 106 + k // 8) >> 4 * (k // 4 % 2) & 15
            scale = float32(d * float32(1 + 2 * nibble))
            high, sign, q = peek_u8(source + 66 + k // 4) >> 2 * (k % 4), peek_u8(source + 74 + k), source + 2 + 2 * k
            first, second = peek_u8(q) + ((high & 1) << 8), peek_u8(q + 1) + ((high >> 1 & 1) << 8)
            signed_quads(grid + 4 * first, grid + 4 * second, sign, scale, target)
            target += 32
        source += 110
