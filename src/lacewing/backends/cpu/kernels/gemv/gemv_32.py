"""One token times the quants with blocks of 32, QUADS blocks at a time (kernels/gemv/gemv.py). Layouts: quants/q4_0.py ..."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from lacewing.backends.cpu.kernels.gemm.dot import emit_fma, emit_load
from lacewing.backends.cpu.kernels.gemv.gemv import (
    QUADS,
    Columns,
    Values,
    at,
    emit_f16,
    emit_nibble,
    emit_scaled,
    emit_sub_blocks,
    make_activations,
    make_four_rows,
    make_kernel,
)
from lacewing.backends.cpu.kernels.simd.registers import (
    F32,
    I8V,
    I16,
    I32,
    I32V,
    ISA,
    LANES,
    VECTOR_BYTES,
    constant,
    f32v,
    instruction,
    splat,
)
from lacewing.backends.cpu.kernels.simd.transpose import emit_words

NIBBLES: Columns = [[[32 * block + 16 * high for block in range(QUADS)] for high in (0, 1)]]  # one sum of two registers
BYTES: Columns = [[[first + quad for quad in range(0, VECTOR_BYTES, 16)]] for first in range(0, 32 * QUADS, VECTOR_BYTES)]


def emit_pieces(b: ir.IRBuilder, row: ir.Value, offsets: list[int]) -> ir.Value:
    """A register of pieces of 16 or 32 bytes, at even offsets in a row."""
    size = VECTOR_BYTES // len(offsets)
    if len(offsets) == 2:
        first, second = (emit_load(b, row, offset, ir.VectorType(I32, size // 4)) for offset in offsets)
        return b.shuffle_vector(first, second, ir.Constant(I32V, list(range(LANES))))
    base = offsets[-1] + size - VECTOR_BYTES  # two loads that overlap, nothing beyond the last piece
    kind = ir.VectorType(I16, VECTOR_BYTES // 2)
    low, high = emit_load(b, row, offsets[0], kind), emit_load(b, row, base, kind)
    words = []
    for offset in offsets:
        inside = offset + size <= offsets[0] + VECTOR_BYTES
        first = (offset - offsets[0]) // 2 if inside else kind.count + (offset - base) // 2
        words += range(first, first + size // 2)
    return b.bitcast(b.shuffle_vector(low, high, ir.Constant(ir.VectorType(I32, kind.count), words)), I32V)


def make_nibbles(block_bytes: int, first: int, fifth: int | None) -> tuple[Any, Any]:
    """`load` and `unpack` of blocks whose nibbles begin at byte `first`, and their fifth bits, if any, at byte `fifth`."""

    def load(b: ir.IRBuilder, row: ir.Value) -> Values:
        found = [emit_pieces(b, row, [block_bytes * block + first for block in range(QUADS)])]
        if fifth is not None:
            bits = ir.Constant(I32V, ir.Undefined)
            for block in range(QUADS):
                four = emit_load(b, row, block_bytes * block + fifth, I32)
                for lane in (4 * block, 4 * block + 2):
                    bits = b.insert_element(bits, four, ir.Constant(I32, lane))
            found.append(bits)
        return found

    def unpack(b: ir.IRBuilder, raws: Values, half: int) -> list[Values]:
        nibbles = [emit_nibble(b, raws[0], high) for high in (0, 1)]
        if fifth is not None:
            nibbles = [b.or_(q, _emit_fifth(b, raws[1], half + 2 * high)) for high, q in enumerate(nibbles)]
        return [nibbles]

    return load, unpack


def _emit_fifth(b: ir.IRBuilder, bits: ir.Value, k: int) -> ir.Value:
    """16 in every byte whose bit is set: those of byte k of the int32 at the beginning of each 8 bytes."""
    whole = b.bitcast(bits, I8V)
    places = [8 * group + k for group in range(VECTOR_BYTES // 8) for _ in range(8)]
    spread = b.shuffle_vector(whole, whole, ir.Constant(ir.VectorType(I32, VECTOR_BYTES), places))
    mask = ir.Constant(I8V, [1 << i for i in range(8)] * (VECTOR_BYTES // 8))
    chosen = b.icmp_signed("!=", b.and_(spread, mask), ir.Constant(I8V, [0] * VECTOR_BYTES))
    return b.bitcast(b.select(chosen, ir.Constant(I8V, [16] * VECTOR_BYTES), ir.Constant(I8V, [0] * VECTOR_BYTES)), I32V)


def make_finish(block_bytes: int, columns: Columns, sub_block: int, with_min: bool) -> Any:
    """`finish(acc, sums, source, stride, xd, xs)`: float16 d, and `with_min` float16 m behind it, begin a block."""

    @instruction(f32v, f32v, *[types.int64] * 5)
    def finish(b, acc, sums, source, stride, xd, xs):
        """acc + QUADS blocks."""
        for block, total in enumerate(emit_sub_blocks(b, sums, columns, sub_block)):
            head = emit_words(b, at(b, source, block_bytes * block), stride)
            acc = emit_scaled(b, acc, total, emit_f16(b, head), at(b, xd, 4 * block))
            if with_min:
                low = emit_f16(b, b.lshr(head, constant(I32V, 16)))
                acc = emit_fma(b, low, splat(b, emit_load(b, xs, 4 * block, F32)), acc)
        return acc

    return finish


def make_nibble_kernel(block_bytes: int, first: int, fifth: int | None, shift: int | None) -> Any:
    load, unpack = make_nibbles(block_bytes, first, fifth)
    fits = fifth is None or shift is not None  # 16 products of 5 bits with a sign do, without they do not
    four_rows = make_four_rows(load, unpack, NIBBLES, [fits])
    finish = make_finish(block_bytes, NIBBLES, 16, shift is None)
    return make_kernel(QUADS * block_bytes, 32 * QUADS, make_activations(NIBBLES, shift), four_rows, finish)


gemv_q4_0 = make_nibble_kernel(18, 2, None, 3)
gemv_q4_1 = make_nibble_kernel(20, 4, None, None)
gemv_q5_0 = make_nibble_kernel(22, 6, 2, 4)
gemv_q5_1 = make_nibble_kernel(24, 8, 4, None)

SIGNED = ISA.dot == "maddubs"
HALF_BLOCKS = VECTOR_BYTES // 32  # blocks in a register


def emit_q8_0_row(b: ir.IRBuilder, row: ir.Value) -> Values:
    if HALF_BLOCKS == 1:
        return [emit_load(b, row, 34 * block + 2, I32V) for block in range(QUADS)]
    return [emit_pieces(b, row, [34 * block + 2, 34 * block + 36]) for block in range(0, QUADS, 2)]


def emit_q8_0_bytes(b: ir.IRBuilder, raws: Values, half: int) -> list[Values]:
    return [[q if SIGNED else b.xor(q, constant(I32V, -0x7F7F7F80))] for q in raws]


four_q8_0 = make_four_rows(emit_q8_0_row, emit_q8_0_bytes, BYTES, [False] * len(BYTES), SIGNED)
gemv_q8_0 = make_kernel(
    34 * QUADS, 32 * QUADS, make_activations(BYTES, None if SIGNED else 7), four_q8_0, make_finish(34, BYTES, 32, False)
)
