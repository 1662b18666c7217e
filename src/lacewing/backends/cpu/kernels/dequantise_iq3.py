"""IQ3_XXS and IQ3_S to float32: `kernel(source, blocks, target, _)`. Layouts: quants/iq3_xxs.py, iq3_s.py."""

from numba import float32

from lacewing.backends.cpu.kernels.lookup import make_table
from lacewing.backends.cpu.kernels.octets import signed_quads
from lacewing.backends.cpu.kernels.simd import peek_f16, peek_i32, peek_u8
from lacewing.quants import grids

grid_xxs, grid_s, sign_bytes = make_table(grids.IQ3_XXS), make_table(grids.IQ3_S), make_table(grids.SIGNS)


def dequantise_iq3_xxs(source, blocks, target, _):
    grid, signs = grid_xxs(), sign_bytes()
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
    grid = grid_s()
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
