"""Rows of a table of embeddings, as float32. A token without a row of it takes another one, or has its values already.

Of a table that is not in memory the rows of a run's tokens are: `gathered`, one behind the other.
"""

from lacewing.backends.cpu.arguments import EMBED, IN_PIECES, SCRATCH_BYTES, STATE, TILE_COLUMNS
from lacewing.backends.cpu.kernels.gemm.dot import MINS, SCALES
from lacewing.backends.cpu.kernels.simd.instructions import (
    load_bf16,
    load_f16,
    load_f32,
    peek_bf16,
    peek_f16,
    peek_f32,
    peek_i32,
    peek_i64,
    peek_u8,
    poke_f32,
    splat_f32,
    store_f32,
)
from lacewing.backends.cpu.kernels.simd.registers import LANES, VECTOR_BYTES, inline
from lacewing.backends.cpu.kernels.simd.threads import call_kernel


@inline
def row_of(args, ids, t):
    """Which row of what is in memory is that of token t; below 0: its values are there already."""
    row = peek_i32(ids + 4 * t)
    if row < 0 or row >= peek_i64(args + EMBED.rows):
        row = peek_i64(args + EMBED.other)
    return t if row >= 0 and peek_i64(args + EMBED.gathered) else row


def embed_tiles(args, state, thread, threads):
    """From a quant with an unpacker: a tile whose lanes are all the same row, or rows that stand side by side. A shift below 0: the
    quant has mins."""
    tile = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
    blocks, columns = peek_i64(args + EMBED.blocks), peek_i64(args + EMBED.block_columns)
    sub_block, shift, scale = peek_i64(args + EMBED.sub_block), peek_i64(args + EMBED.shift), peek_f32(args + EMBED.scale)
    tokens, ids, order = peek_i64(state + STATE.tokens), peek_i64(state + STATE.ids), peek_i64(args + EMBED.tiled)
    for t in range(tokens * thread // threads, tokens * (thread + 1) // threads):
        row, weight = row_of(args, ids, t), peek_i64(args + EMBED.weight)
        if row < 0:
            continue
        lane = row % LANES if order else 0
        inside = 4 * lane if order == IN_PIECES else 0  # of the tile; else all lanes are that row
        source = weight + (row - lane) * peek_i64(args + EMBED.row_bytes)
        out = peek_i64(args + EMBED.out) + t * peek_i64(args + EMBED.out_stride)
        done = 0
        while done < blocks:
            now = min(TILE_COLUMNS // columns, blocks - done)
            first = done if order == 0 else done * LANES if order == IN_PIECES else done * LANES + lane * now
            call_kernel(peek_i64(args + EMBED.unpack), source + first * peek_i64(args + EMBED.block_bytes), 0, tile, now)
            for c in range(now * columns):
                at = tile + inside + VECTOR_BYTES * (c // sub_block)
                d, low, q = peek_f32(at + SCALES), peek_f32(at + MINS), peek_u8(tile + inside + VECTOR_BYTES * (c // 4) + c % 4)
                value = d * q + low if shift < 0 else d * (q - (1 << shift))
                poke_f32(out + 4 * (done * columns + c), value * scale)
            done += now


def embed_generic(args, state, thread, threads):
    """From a quant with a dequantiser only."""
    blocks = peek_i64(args + EMBED.blocks)
    scale, width = peek_f32(args + EMBED.scale), peek_i64(args + EMBED.width)
    tokens, ids = peek_i64(state + STATE.tokens), peek_i64(state + STATE.ids)
    for t in range(tokens * thread // threads, tokens * (thread + 1) // threads):
        row = row_of(args, ids, t)
        if row < 0:
            continue
        source = peek_i64(args + EMBED.weight) + row * peek_i64(args + EMBED.row_bytes)
        out = peek_i64(args + EMBED.out) + t * peek_i64(args + EMBED.out_stride)
        call_kernel(peek_i64(args + EMBED.unpack), source, blocks, out, 0)
        for c in range(width):
            poke_f32(out + 4 * c, peek_f32(out + 4 * c) * scale)


def make_embed(load, peek, itemsize):
    """`kernel` for a table of floats."""

    @inline
    def widen(source, out, width, scale):
        whole = width - width % LANES
        for c in range(0, whole, LANES):
            store_f32(out + 4 * c, load(source + itemsize * c) * splat_f32(scale))
        for c in range(whole, width):
            poke_f32(out + 4 * c, peek(source + itemsize * c) * scale)

    def kernel(args, state, thread, threads):
        scale, width = peek_f32(args + EMBED.scale), peek_i64(args + EMBED.width)
        tokens, ids = peek_i64(state + STATE.tokens), peek_i64(state + STATE.ids)
        for t in range(tokens * thread // threads, tokens * (thread + 1) // threads):
            row = row_of(args, ids, t)
            if row < 0:
                continue
            source = peek_i64(args + EMBED.weight) + row * peek_i64(args + EMBED.row_bytes)
            widen(source, peek_i64(args + EMBED.out) + t * peek_i64(args + EMBED.out_stride), width, scale)

    return kernel


embed_f32 = make_embed(load_f32, peek_f32, 4)
embed_f16 = make_embed(load_f16, peek_f16, 2)
embed_bf16 = make_embed(load_bf16, peek_bf16, 2)
