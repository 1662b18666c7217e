"""Products with weights in tile order, straight from memory: one to eight tokens for each reading of a block.

In tile order the pieces of a block, such as its words of 4 bytes, stand side by side for LANES rows (`backends.weights.TileOrder`),
so that a load gives one row a lane. A mask and a shift make registers of bytes, each register is multiplied with the activations
of all tokens while it is there, and nothing is transposed or stored. Sums and float operations are those of kernels/gemm/dot.py, in
the same order: the results are the same bits. Many tokens have the block unpacked to a tile instead, once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types

from lacewing.backends.cpu.arguments import JOB
from lacewing.backends.cpu.isa import AMD
from lacewing.backends.cpu.kernels.gemm.dot import (
    MAX_TOKENS,
    MINS,
    SCALES,
    emit_load,
    emit_sub_block,
    make_registers,
    room_of,
)
from lacewing.backends.cpu.kernels.gemm.products import SMALL, emit_dots, emit_signed_dots
from lacewing.backends.cpu.kernels.simd.instructions import peek_i64, prefetch_once
from lacewing.backends.cpu.kernels.simd.registers import (
    F16,
    F32V,
    GIVEN,
    I16,
    I32V,
    ISA,
    LANES,
    VECTOR_BYTES,
    constant,
    inline,
    instruction,
    pointer,
)

Values = list[ir.Value]
TURN_COLUMNS = 256  # of a tile, before the one beside it has its turn
FLIP = constant(I32V, -0x7F7F7F80)  # 0x80 in every byte: between signed bytes and those that are 128 more


class SubBlock(NamedTuple):
    """Of a part of a block: registers of weight bytes, lane r those of row r, the first column, and the rows' scales and mins."""

    registers: Values
    column: int
    scale: ir.Value
    low: ir.Value | None = None


@dataclass(frozen=True)
class Blocks:
    """How blocks of a quant are read. A block is `parts` equal runs of columns, which one loop runs through.

    emit_head(b, block, scales) stores the scales of all sub-blocks at `scales`, and the mins MINS - SCALES behind them; None:
    `emit_part` has them. emit_part(b, block, part, scales) gives the sub-blocks of a part in their order; scales: those of the
    part. Weight bytes are at most `most`, and the true value + 2**shift or, `shift` None, true bytes with mins; above SMALL the
    shift is 7. `in_order`: a block is read from its beginning to its end.
    """

    block_bytes: int
    columns: int
    parts: int
    sub_block: int
    shift: int | None
    emit_head: Callable[[ir.IRBuilder, ir.Value, ir.Value], None] | None
    emit_part: Callable[[ir.IRBuilder, ir.Value, ir.Value, ir.Value], Iterator[SubBlock]]
    most: int
    in_order: bool = True

    @property
    def step(self) -> int:
        """Columns of a part."""
        return self.columns // self.parts


def emit_word(b: ir.IRBuilder, block: ir.Value, offset: int) -> ir.Value:
    """The 4 bytes of each row that stand at `offset` of its block."""
    return emit_load(b, block, LANES * offset, I32V)


def emit_words(b: ir.IRBuilder, block: ir.Value, offset: int, count: int) -> Values:
    return [emit_word(b, block, offset + 4 * i) for i in range(count)]


def emit_half(b: ir.IRBuilder, block: ir.Value, offset: int) -> ir.Value:
    """The float16 of each row that stands at `offset` of its block, widened."""
    return b.fpext(b.bitcast(emit_load(b, block, LANES * offset, ir.VectorType(I16, LANES)), ir.VectorType(F16, LANES)), F32V)


def emit_offset(b: ir.IRBuilder, base: ir.Value, part: ir.Value, nbytes: int) -> ir.Value:
    """base + part * nbytes."""
    return b.add(base, b.mul(part, ir.Constant(part.type, nbytes)))


def emit_put(b: ir.IRBuilder, p: ir.Value, register: int, value: ir.Value) -> None:
    b.store(value, pointer(b, b.add(p, ir.Constant(p.type, VECTOR_BYTES * register)), value.type), align=4)


def make_head(blocks: Blocks) -> Any:
    """`head(block, scales)`: see `Blocks.emit_head`."""

    @instruction(types.void, types.int64, types.int64)
    def head(b, block, scales):
        if blocks.emit_head is not None:
            blocks.emit_head(b, block, scales)

    return head


def make_products(blocks: Blocks) -> Any:
    """`products(acc, block, part, scales, xq, xd, xs, offsets) -> acc`: a part times the tokens at offsets, as many as acc has."""
    sum_bytes = 4 * 32 // blocks.sub_block

    @instruction(GIVEN, GIVEN, *[types.int64] * 7)
    def products(b, acc, block, part, scales, xq, xd, xs, offsets):
        for each in blocks.emit_part(b, block, part, scales):
            at = [(xq, each.column), (xd, each.column // 32 * 4), (xs, each.column * sum_bytes // 32)]
            places = [b.add(p, ir.Constant(p.type, n)) for p, n in at]
            shift = None if blocks.shift is None else constant(I32V, blocks.shift)
            registers, dots = each.registers, partial(emit_dots, most=blocks.most)
            if blocks.most > SMALL and ISA.dot == "maddubs":  # bytes above 63 could overflow sums of pairs; signed ones do not
                registers, shift, dots = [b.xor(q, FLIP) for q in registers], None, emit_signed_dots
            acc = emit_sub_block(b, acc, registers, each.scale, each.low, shift, places, offsets, dots)
        return acc

    return products


def make_unpacked(blocks: Blocks) -> Any:
    """`unpacked(block, part, scales, tile)`: the bytes of a part to `tile` and, without a head, its scales and mins to `scales`."""

    @instruction(types.void, *[types.int64] * 4)
    def unpacked(b, block, part, scales, tile):
        for index, each in enumerate(blocks.emit_part(b, block, part, scales)):
            for i, register in enumerate(each.registers):
                emit_put(b, tile, each.column // 4 + i, register)
            if blocks.emit_head is None:
                emit_put(b, scales, index, each.scale)
                if each.low is not None:
                    emit_put(b, scales, (MINS - SCALES) // VECTOR_BYTES + index, each.low)

    return unpacked


def make_span(blocks: Blocks, tokens: int, head: Any, products: Any) -> Any:
    """`span(source, count, scales, offsets, p, ahead, end, jump, xq, xd, xs)`: some blocks that follow each other times so many
    tokens, added to the registers at p."""
    asks = not (AMD and blocks.in_order) or tokens == MAX_TOKENS
    (load, store), parts, sub_blocks = make_registers(tokens), blocks.parts, blocks.step // blocks.sub_block
    nbytes, columns, step, sums = LANES * blocks.block_bytes, blocks.columns, blocks.step, sub_blocks * 4
    lines = (nbytes // parts + 63) // 64

    @inline
    def span(source, count, scales, offsets, p, ahead, end, jump, xq, xd, xs):
        acc = load(p)
        for _ in range(count):
            head(source, scales)
            then = ahead if ahead < end else ahead + jump
            for part in range(parts):
                if asks and ahead:
                    for line in range(lines):
                        prefetch_once(then + 64 * (lines * part + line))
                factors = xd + step * part // 32 * 4
                acc = products(acc, source, part, scales + VECTOR_BYTES * sub_blocks * part, xq, factors, xs, offsets)
                xq, xs = xq + step, xs + sums
            source, xd = source + nbytes, xd + columns // 8
            if ahead:
                ahead += nbytes
        store(p, acc)

    return span


def make_run(blocks: Blocks, tokens: int, head: Any, products: Any) -> Any:
    """`run(source, beside, count, job, offsets, p, ahead, end, jump)`: as `make_tiled` says, for so many tokens, whose
    accumulators begin at p. Of two tiles TURN_COLUMNS are read by turns."""
    span, turn = make_span(blocks, tokens, head, products), TURN_COLUMNS // blocks.columns
    nbytes, columns, sums = LANES * blocks.block_bytes, blocks.columns, blocks.columns // blocks.sub_block * 4

    @inline
    def run(source, beside, count, job, offsets, p, ahead, end, jump):
        xq, xd, xs = peek_i64(job + JOB.xq), peek_i64(job + JOB.xd), peek_i64(job + JOB.xs)
        scales, room = peek_i64(job + JOB.tile) + SCALES, VECTOR_BYTES * room_of(peek_i64(job + JOB.tokens))
        tiles, at_once, done = (2, turn, 0) if beside else (1, count, 0)
        while done < count:
            now, at = min(at_once, count - done), done * nbytes
            x = xq + done * columns, xd + done * columns // 8, xs + done * sums
            for tile in range(tiles):
                apart = beside * tile
                then = ahead + at + apart if ahead else 0
                span(source + at + apart, now, scales, offsets, p + room * tile, then, end + apart, jump, *x)
            done += now

    @inline
    def alone(source, beside, count, job, offsets, p, ahead, end, jump):
        xq, xd, xs = peek_i64(job + JOB.xq), peek_i64(job + JOB.xd), peek_i64(job + JOB.xs)
        span(source, count, peek_i64(job + JOB.tile) + SCALES, offsets, p, ahead, end, jump, xq, xd, xs)

    return run if turn == 1 else alone  # turns of several small blocks made the code of many tokens a fifth slower


def make_tiled(blocks: Blocks) -> Any:
    """`kernel(source, beside, job, count)`: some blocks of a tile times all tokens of the job, added to JOB.acc.

    `beside` not 0, which only blocks of TURN_COLUMNS take: also those of the tile so many bytes further on, by turns, as two places
    of memory come faster than one; its accumulators are `room_of(JOB.tokens)` registers behind.

    What lies JOB.ahead further on in memory is asked for; from JOB.end on a thread goes on JOB.jump further. On AMD (Zen 4)
    blocks that are read in order come a third faster by the CPU's own prefetchers alone, for few tokens. They begin anew with
    every page of memory, which delays eight tokens, whose products take longer than the reading.
    """
    head, products = make_head(blocks), make_products(blocks)
    eight, four, three, two, one = (make_run(blocks, tokens, head, products) for tokens in (8, 4, 3, 2, 1))
    most, in_order, alone = MAX_TOKENS, blocks.in_order, 8 if MAX_TOKENS == 8 else 9

    def kernel(source, beside, job, count):
        offsets, tokens, p = peek_i64(job + JOB.offsets), peek_i64(job + JOB.tokens), peek_i64(job + JOB.acc)
        ahead, end, jump = source + peek_i64(job + JOB.ahead), peek_i64(job + JOB.end), peek_i64(job + JOB.jump)
        if AMD and in_order and tokens < alone:
            ahead = 0
        if most == 8:
            while tokens >= 8:
                eight(source, beside, count, job, offsets, p, ahead, end, jump)
                offsets, p, tokens, ahead = offsets + 64, p + 8 * VECTOR_BYTES, tokens - 8, 0
        while tokens == 4 or tokens > 5:
            four(source, beside, count, job, offsets, p, ahead, end, jump)
            offsets, p, tokens, ahead = offsets + 32, p + 4 * VECTOR_BYTES, tokens - 4, 0
        if tokens >= 3:
            three(source, beside, count, job, offsets, p, ahead, end, jump)
            offsets, p, tokens, ahead = offsets + 24, p + 3 * VECTOR_BYTES, tokens - 3, 0
        if tokens == 2:
            two(source, beside, count, job, offsets, p, ahead, end, jump)
        elif tokens:
            one(source, beside, count, job, offsets, p, ahead, end, jump)

    return kernel


def make_unpack(blocks: Blocks) -> Any:
    """`kernel(source, _, tile, count)`: some blocks of LANES rows to a tile, as the unpackers of kernels/quants do from rows."""
    head, unpacked, parts, sub_blocks = make_head(blocks), make_unpacked(blocks), blocks.parts, blocks.step // blocks.sub_block
    nbytes, part_bytes = LANES * blocks.block_bytes, blocks.step // 4 * VECTOR_BYTES

    def kernel(source, _, tile, count):
        scales = tile + SCALES
        for _block in range(count):
            head(source, scales)
            for part in range(parts):
                unpacked(source, part, scales, tile)
                scales, tile = scales + VECTOR_BYTES * sub_blocks, tile + part_bytes
            source += nbytes

    return kernel


def make_kernels(blocks: Blocks) -> tuple[Any, Any]:
    """The kernel for few tokens, and the unpacker for many."""
    return make_tiled(blocks), make_unpack(blocks)


def emit_nibble(b: ir.IRBuilder, q: ir.Value, high: int) -> ir.Value:
    return b.and_(b.lshr(q, constant(I32V, 4)) if high else q, constant(I32V, 0x0F0F0F0F))
