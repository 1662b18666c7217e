"""Q4_K, Q5_K and Q6_K in tile order (kernels/tiled/tiled.py). Layouts of a block: quants/q4_k.py and so on."""

from __future__ import annotations

from collections.abc import Iterator

from llvmlite import ir

from lacewing.backends.cpu.kernels.gemm.dot import MINS, SCALES, emit_load
from lacewing.backends.cpu.kernels.gemv.gemv_k import emit_scales
from lacewing.backends.cpu.kernels.simd.registers import F32V, I32, I32V, LANES, VECTOR_BYTES, call, constant, splat
from lacewing.backends.cpu.kernels.tiled.tiled import (
    Blocks,
    SubBlock,
    Values,
    emit_half,
    emit_nibble,
    emit_offset,
    emit_put,
    emit_words,
    make_kernels,
)

FLOATS_BETWEEN = (MINS - SCALES) // VECTOR_BYTES


def emit_head(b: ir.IRBuilder, block: ir.Value, to: ir.Value) -> None:
    """Scales and mins of Q4_K and Q5_K."""
    scales, mins = emit_scales(b, *emit_words(b, block, 0, 4))
    for index, (scale, low) in enumerate(zip(scales, mins, strict=True)):
        emit_put(b, to, index, scale)
        emit_put(b, to, FLOATS_BETWEEN + index, low)


def emit_bits(b: ir.IRBuilder, part: ir.Value, first: int, count: int) -> ir.Value:
    """`count` bits of a number from bit `first` on."""
    return b.and_(b.lshr(part, ir.Constant(part.type, first)), ir.Constant(part.type, (1 << count) - 1))


def emit_places(b: ir.IRBuilder, part: ir.Value, first: int, count: int, times: int) -> ir.Value:
    """Such bits times a number, in every lane."""
    return splat(b, b.trunc(b.mul(emit_bits(b, part, first, count), ir.Constant(part.type, times)), I32))


def emit_masked(b: ir.IRBuilder, q: ir.Value, places: ir.Value, mask: int) -> ir.Value:
    return b.and_(b.lshr(q, places), constant(I32V, mask))


def emit_32(b: ir.IRBuilder, block: ir.Value, part: ir.Value, first: int) -> Values:
    """Nibbles of Q5_K, which begin at byte `first`: 64 columns in 32 bytes, the second half in the high nibbles."""
    at, places = emit_offset(b, block, emit_bits(b, part, 1, 3), 8 * VECTOR_BYTES), emit_places(b, part, 0, 1, 4)
    return [emit_masked(b, q, places, 0x0F0F0F0F) for q in emit_words(b, at, first, 8)]


def with_scales(b: ir.IRBuilder, registers: Values, scales: ir.Value) -> SubBlock:
    low = emit_load(b, scales, VECTOR_BYTES * FLOATS_BETWEEN, F32V)
    return SubBlock(registers, 0, emit_load(b, scales, 0, F32V), low)


def emit_q4_k(b: ir.IRBuilder, block: ir.Value, part: ir.Value, scales: ir.Value) -> Iterator[SubBlock]:
    """64 columns in 32 bytes, the second half in the high nibbles."""
    words = emit_words(b, emit_offset(b, block, part, 8 * VECTOR_BYTES), 16, 8)
    for high in (0, 1):
        registers = [emit_nibble(b, q, high) for q in words]
        low = emit_load(b, scales, VECTOR_BYTES * (FLOATS_BETWEEN + high), F32V)
        yield SubBlock(registers, 32 * high, emit_load(b, scales, VECTOR_BYTES * high, F32V), low)


def emit_q5_k(b: ir.IRBuilder, block: ir.Value, part: ir.Value, scales: ir.Value) -> Iterator[SubBlock]:
    """Bit s of 32 bytes is the fifth bit of sub-block s."""
    places = emit_places(b, part, 0, 3, 1)
    fifths = [b.shl(emit_masked(b, top, places, 0x01010101), constant(I32V, 4)) for top in emit_words(b, block, 16, 8)]
    yield with_scales(b, [b.or_(q, fifth) for q, fifth in zip(emit_32(b, block, part, 48), fifths, strict=True)], scales)


def emit_q6_k_head(b: ir.IRBuilder, block: ir.Value, to: ir.Value) -> None:
    d, places = emit_half(b, block, 208), constant(I32V, 24)
    for w, words in enumerate(emit_words(b, block, 192, 4)):
        for k in range(4):
            scale = b.sitofp(b.ashr(b.shl(words, constant(I32V, 24 - 8 * k)), places), F32V)
            emit_put(b, to, 4 * w + k, b.fmul(d, scale))


def emit_upper_bits(b: ir.IRBuilder, top: ir.Value, right: ir.Value) -> ir.Value:
    """Two bits of each byte, from bit `right` on, as bits 4 and 5."""
    if LANES < 16:  # registers that cannot be rotated in one instruction
        return b.shl(emit_masked(b, top, right, 0x03030303), constant(I32V, 4))
    turned = call(b, f"llvm.fshl.v{LANES}i32", I32V, top, top, b.sub(constant(I32V, 4), right))  # they stay in their byte
    return b.and_(turned, constant(I32V, 0x30303030))


def emit_q6_k(b: ir.IRBuilder, block: ir.Value, part: ir.Value, scales: ir.Value) -> Iterator[SubBlock]:
    """16 columns, so that eight tokens have registers enough. A half of 128 is 64 bytes, with 64 columns in the low nibbles and
    64 in the high ones; the upper two bits of its k-th 32 columns are bits 2 k and 2 k + 1 of 32 other bytes."""
    half = emit_bits(b, part, 3, 1)
    nibbles = emit_offset(b, emit_offset(b, block, half, 16 * VECTOR_BYTES), emit_bits(b, part, 0, 2), 4 * VECTOR_BYTES)
    tops = emit_offset(b, emit_offset(b, block, half, 8 * VECTOR_BYTES), emit_bits(b, part, 0, 1), 4 * VECTOR_BYTES)
    high, right = emit_places(b, part, 2, 1, 4), emit_places(b, part, 1, 2, 2)
    registers = []
    for q, top in zip(emit_words(b, nibbles, 0, 4), emit_words(b, tops, 128, 4), strict=True):
        registers.append(b.or_(emit_masked(b, q, high, 0x0F0F0F0F), emit_upper_bits(b, top, right)))
    yield SubBlock(registers, 0, emit_load(b, scales, 0, F32V))


tiled_q4_k, unpack_q4_k = make_kernels(Blocks(144, 256, 4, 32, None, emit_head, emit_q4_k, 15))
tiled_q5_k, unpack_q5_k = make_kernels(Blocks(176, 256, 8, 32, None, emit_head, emit_q5_k, 31, in_order=False))
tiled_q6_k, unpack_q6_k = make_kernels(Blocks(210, 256, 16, 16, 5, emit_q6_k_head, emit_q6_k, 63, in_order=False))
