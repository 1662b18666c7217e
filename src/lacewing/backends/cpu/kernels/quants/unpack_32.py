"""From file blocks to tiles: the quants with blocks of 32. Layouts: quants/q4_0.py and so on.

Value i < 16 of a block is the low nibble of byte i, value i + 16 its high nibble.
"""

from lacewing.backends.cpu.kernels.gemm.dot import MINS, SCALES
from lacewing.backends.cpu.kernels.simd.instructions import (
    high_f16,
    load_i32,
    low_f16,
    shift_right,
    splat_i32,
    store_f32,
    store_i32,
)
from lacewing.backends.cpu.kernels.simd.registers import VECTOR_BYTES, inline
from lacewing.backends.cpu.kernels.simd.transpose import nibbles16, transpose1, transpose8

BLOCK = 8 * VECTOR_BYTES  # a block of 32 columns in a tile


def unpack_q4_0(source, stride, tile, blocks):
    """18 bytes: float16 d, nibbles. Bytes are the true value + 8."""
    for block in range(blocks):
        store_f32(tile + SCALES + VECTOR_BYTES * block, low_f16(transpose1(source, stride)))
        nibbles16(source + 2, stride, tile + BLOCK * block)
        source += 18


def unpack_q4_1(source, stride, tile, blocks):
    """20 bytes: float16 d, float16 m, nibbles."""
    for block in range(blocks):
        head = transpose1(source, stride)
        store_f32(tile + SCALES + VECTOR_BYTES * block, low_f16(head))
        store_f32(tile + MINS + VECTOR_BYTES * block, high_f16(head))
        nibbles16(source + 4, stride, tile + BLOCK * block)
        source += 20


@inline
def fifth_bits(bits, target):
    """Bit i of the lane's word becomes bit 4 of value i."""
    for w in range(8):
        nibble = shift_right(bits, 4 * w) & splat_i32(15)
        spread = (nibble * splat_i32(0x00204081)) & splat_i32(0x01010101)  # bit k to byte k
        at = target + VECTOR_BYTES * w
        store_i32(at, load_i32(at) | spread * splat_i32(16))


def unpack_q5_0(source, stride, tile, blocks):
    """22 bytes: float16 d, 32 fifth bits, nibbles. Bytes are the true value + 16."""
    for block in range(blocks):
        store_f32(tile + SCALES + VECTOR_BYTES * block, low_f16(transpose1(source, stride)))
        nibbles16(source + 6, stride, tile + BLOCK * block)
        fifth_bits(transpose1(source + 2, stride), tile + BLOCK * block)
        source += 22


def unpack_q5_1(source, stride, tile, blocks):
    """24 bytes: float16 d, float16 m, 32 fifth bits, nibbles."""
    for block in range(blocks):
        head = transpose1(source, stride)
        store_f32(tile + SCALES + VECTOR_BYTES * block, low_f16(head))
        store_f32(tile + MINS + VECTOR_BYTES * block, high_f16(head))
        nibbles16(source + 8, stride, tile + BLOCK * block)
        fifth_bits(transpose1(source + 4, stride), tile + BLOCK * block)
        source += 24


def unpack_q8_0(source, stride, tile, blocks):
    """34 bytes: float16 d, 32 signed bytes. Bytes are the true value + 128."""
    flip = splat_i32(-0x7F7F7F80)  # 0x80 in every byte
    for block in range(blocks):
        store_f32(tile + SCALES + VECTOR_BYTES * block, low_f16(transpose1(source, stride)))
        target = tile + BLOCK * block
        transpose8(source + 2, stride, target)
        for w in range(8):
            store_i32(target + VECTOR_BYTES * w, load_i32(target + VECTOR_BYTES * w) ^ flip)
        source += 34
