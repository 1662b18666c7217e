"""The quants with blocks of 32 in tile order (kernels/tiled/tiled.py). Layouts of a block: quants/q4_0.py and so on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from llvmlite import ir

from lacewing.backends.cpu.kernels.gemm.products import WIDE
from lacewing.backends.cpu.kernels.gemv.gemv import emit_f16
from lacewing.backends.cpu.kernels.simd.registers import I32V, constant
from lacewing.backends.cpu.kernels.tiled.tiled import (
    FLIP,
    Blocks,
    SubBlock,
    Values,
    emit_half,
    emit_nibble,
    emit_word,
    emit_words,
    make_kernels,
)

Part = Callable[[ir.IRBuilder, ir.Value, ir.Value, ir.Value], Iterator[SubBlock]]


def emit_fifths(b: ir.IRBuilder, bits: ir.Value) -> Values:
    """Bit i of the lane's word as bit 4 of byte i, in 8 registers."""
    made = []
    for w in range(8):
        nibble = b.and_(b.lshr(bits, constant(I32V, 4 * w)), constant(I32V, 15))
        spread = b.and_(b.mul(nibble, constant(I32V, 0x00204081)), constant(I32V, 0x01010101))  # bit k to byte k
        made.append(b.shl(spread, constant(I32V, 4)))
    return made


def make_nibbles(first: int, fifth: int | None, with_min: bool) -> Part:
    """Of blocks whose nibbles begin at byte `first`, and their fifth bits, if any, at byte `fifth`. float16 d, and `with_min`
    float16 m behind it, begin a block."""

    def emit_part(b: ir.IRBuilder, block: ir.Value, part: ir.Value, scales: ir.Value) -> Iterator[SubBlock]:
        words = emit_words(b, block, first, 4)
        registers = [emit_nibble(b, q, high) for high in (0, 1) for q in words]
        if fifth is not None:
            registers = [b.or_(q, bit) for q, bit in zip(registers, emit_fifths(b, emit_word(b, block, fifth)), strict=True)]
        if not with_min:
            yield SubBlock(registers, 0, emit_half(b, block, 0))
            return
        head = emit_word(b, block, 0)
        yield SubBlock(registers, 0, emit_f16(b, head), emit_f16(b, b.lshr(head, constant(I32V, 16))))

    return emit_part


def emit_q8_0(b: ir.IRBuilder, block: ir.Value, part: ir.Value, scales: ir.Value) -> Iterator[SubBlock]:
    yield SubBlock([b.xor(q, FLIP) for q in emit_words(b, block, 2, 8)], 0, emit_half(b, block, 0))


tiled_q4_0, unpack_q4_0 = make_kernels(Blocks(18, 32, 1, 32, 3, None, make_nibbles(2, None, False), 15))
tiled_q4_1, unpack_q4_1 = make_kernels(Blocks(20, 32, 1, 32, None, None, make_nibbles(4, None, True), 15))
tiled_q5_0, unpack_q5_0 = make_kernels(Blocks(22, 32, 1, 32, 4, None, make_nibbles(6, 2, False), 31))
tiled_q5_1, unpack_q5_1 = make_kernels(Blocks(24, 32, 1, 32, None, None, make_nibbles(8, 4, True), 31))
tiled_q8_0, unpack_q8_0 = make_kernels(Blocks(34, 32, 1, 32, 7, None, emit_q8_0, WIDE))
