"""From file blocks to tiles: quants whose four bits choose from a table. Layouts: quants/iq4_nl.py and so on."""

from lacewing.backends.cpu.kernels.gemm.dot import SCALES, SCRATCH
from lacewing.backends.cpu.kernels.quants.lookup import make_byte_table
from lacewing.backends.cpu.kernels.simd.instructions import (
    floats_of,
    load_i32,
    low_f16,
    shift_left,
    shift_right,
    splat_i32,
    store_f32,
    store_i32,
    to_f32,
)
from lacewing.backends.cpu.kernels.simd.registers import VECTOR_BYTES, inline
from lacewing.backends.cpu.kernels.simd.transpose import transpose1, transpose4
from lacewing.quants import iq4_nl, mxfp4

BLOCK = 8 * VECTOR_BYTES  # 32 columns of a tile

uneven = make_byte_table(iq4_nl.VALUES.astype(int) + 128)
small_floats = make_byte_table(mxfp4.VALUES.astype(int) + 16)


def make_values(look_up):
    """`values(source, stride, target, scratch)`: 16 bytes a row to 8 registers of entries."""

    @inline
    def values(source, stride, target, scratch):
        transpose4(source, stride, scratch)
        low = splat_i32(0x0F0F0F0F)
        for w in range(4):
            q = load_i32(scratch + VECTOR_BYTES * w)
            store_i32(target + VECTOR_BYTES * w, look_up(q & low))
            store_i32(target + VECTOR_BYTES * (w + 4), look_up(shift_right(q, 4) & low))

    return values


uneven_values, small_float_values = make_values(uneven), make_values(small_floats)


def unpack_iq4_nl(source, stride, tile, blocks):
    """18 bytes: float16 d, nibbles. Bytes are the true value + 128."""
    for block in range(blocks):
        store_f32(tile + SCALES + VECTOR_BYTES * block, low_f16(transpose1(source, stride)))
        uneven_values(source + 2, stride, tile + BLOCK * block, tile + SCRATCH)
        source += 18


def unpack_iq4_xs(source, stride, tile, blocks):
    """136 bytes: float16 d, high pairs and low nibbles of eight scales, nibbles. Bytes are the true value + 128."""
    head, low = transpose1(source, stride), transpose1(source + 4, stride)
    d = low_f16(head)
    for g in range(8):
        scale = (shift_right(low, 4 * g) & splat_i32(15)) | shift_left(shift_right(head, 16 + 2 * g) & splat_i32(3), 4)
        store_f32(tile + SCALES + VECTOR_BYTES * g, d * to_f32(scale - splat_i32(32)))
        uneven_values(source + 8 + 16 * g, stride, tile + BLOCK * g, tile + SCRATCH)


def unpack_mxfp4(source, stride, tile, blocks):
    """17 bytes: exponent e, nibbles. Bytes are the true value + 16."""
    for block in range(blocks):
        e = transpose1(source, stride) & splat_i32(255)
        # 2^(e - 128) as a product of two normal numbers: it may itself be subnormal
        half = shift_right(e, 1)
        scale = power(half) * power(e - half)
        store_f32(tile + SCALES + VECTOR_BYTES * block, scale)
        small_float_values(source + 1, stride, tile + BLOCK * block, tile + SCRATCH)
        source += 17


@inline
def power(n):
    """2^(n - 64), 0 <= n <= 190."""
    return floats_of(shift_left(n + splat_i32(63), 23))
