"""IQ1_S and IQ1_M to float32: `kernel(source, blocks, target, _)`. Layouts: quants/iq1_s.py, iq1_m.py."""

from numba import float32, types

from lacewing.backends.cpu.kernels.lookup import make_table
from lacewing.backends.cpu.kernels.octets import shifted_octet
from lacewing.backends.cpu.kernels.registers import F16, F32, I16, instruction
from lacewing.backends.cpu.kernels.simd import peek_f16, peek_u8, peek_u16
from lacewing.quants import grids

grid_s = make_table(grids.IQ1_S)


@instruction(types.float32, types.int64)
def f16_of_bits(b, bits):
    """The float16 with these bits, widened."""
    return b.fpext(b.bitcast(b.trunc(bits, I16), F16), F32)


def dequantise_iq1_s(source, blocks, target, _):
    grid = grid_s()
    for _block in range(blocks):
        d = peek_f16(source)
        for g in range(8):
            h = peek_u16(source + 34 + 2 * g)
            scale = float32(d * float32(2 * (h >> 12 & 7) + 1))
            shift = float32(-0.125) if h & 0x8000 else float32(0.125)
            for l in range(4):
                row = peek_u8(source + 2 + 4 * g + l) + ((h >> 3 * l & 7) << 8)
                shifted_octet(grid + 8 * row, shift, scale, target)
                target += 32
        source += 50


def dequantise_iq1_m(source, blocks, target, _):
    grid = grid_s()
    for _block in range(blocks):
        bits = 0
        for j in range(4):
            bits |= peek_u16(source + 48 + 2 * j) >> 12 << 4 * j
        d = f16_of_bits(bits)
        for k in range(32):
            nibble = peek_u8(source + 32 + k // 2) >> 4 * (k % 2) & 15
            row = peek_u8(source + k) + ((nibble & 7) << 8)
            scale = float32(d * float32(2 * (peek_u16(source + 48 + k // 8 * 2) >> 3 * (k // 2 % 4) & 7) + 1))
            shifted_octet(grid + 8 * row, float32(-0.125) if nibble & 8 else float32(0.125), scale, target)
            target += 32
        source += 56
