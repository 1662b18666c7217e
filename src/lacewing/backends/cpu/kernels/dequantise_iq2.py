"""IQ2_XXS, IQ2_XS, IQ2_S to float32: `kernel(source, blocks, target, _)`. Layouts: quants/iq2_xxs.py and so on."""

from numba import float32

from lacewing.backends.cpu.kernels.lookup import make_table
from lacewing.backends.cpu.kernels.octets import signed_octet
from lacewing.backends.cpu.kernels.registers import inline
from lacewing.backends.cpu.kernels.simd import peek_f16, peek_i32, peek_u8, peek_u16
from lacewing.quants import grids

grid_xxs, grid_xs, grid_s = make_table(grids.IQ2_XXS), make_table(grids.IQ2_XS), make_table(grids.IQ2_S)
sign_bytes = make_table(grids.SIGNS)


def dequantise_iq2_xxs(source, blocks, target, _):
    grid, signs = grid_xxs(), sign_bytes()
    for _block in range(blocks):
        d = peek_f16(source)
        for g in range(8):
            at = source + 2 + 8 * g
            word = peek_i32(at + 4)
            scale = float32(d * float32(0.5 + (word >> 28 & 15)) * float32(0.25))
            for l in range(4):
                signed_octet(grid + 8 * peek_u8(at + l), peek_u8(signs + (word >> 7 * l & 127)), scale, target)
                target += 32
        source += 66


@inline
def nibble_scale(d, field, k):
    """Of octet k: two octets share a nibble."""
    nibble = peek_u8(field + k // 4) >> 4 * (k // 2 % 2) & 15
    return float32(d * float32(0.5 + nibble) * float32(0.25))


def dequantise_iq2_xs(source, blocks, target, _):
    grid, signs = grid_xs(), sign_bytes()
    for _block in range(blocks):
        d = peek_f16(source)
        for k in range(32):
            q = peek_u16(source + 2 + 2 * k)
            signed_octet(grid + 8 * (q & 511), peek_u8(signs + (q >> 9)), nibble_scale(d, source + 66, k), target)
            target += 32
        source += 74


def dequantise_iq2_s(source, blocks, target, _):
    grid = grid_s()
    for _block in range(blocks):
        d = peek_f16(source)
        for k in range(32):
            row = peek_u8(source + 2 + k) + ((peek_u8(source + 66 + k // 4) >> 2 * (k % 4) & 3) << 8)
            signed_octet(grid + 8 * row, peek_u8(source + 34 + k), nibble_scale(d, source + 74, k), target)
            target += 32
        source += 82
