"""Rows of the embedding table, as float32."""

from lacewing.backends.cpu.kernels.simd import (
    LANES,
    VECTOR_BYTES,
    call_kernel,
    inline,
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
from lacewing.backends.cpu.kernels.state import SCRATCH_BYTES, STATE_IDS, STATE_SCRATCH, STATE_TOKENS
from lacewing.backends.cpu.kernels.tile import MINIMA, SCALES

(
    EMBED_WEIGHT, EMBED_ROW_BYTES, EMBED_WIDTH, EMBED_OUT, EMBED_OUT_STRIDE, EMBED_SCALE, EMBED_UNPACK, EMBED_BLOCKS,
    EMBED_BLOCK_BYTES, EMBED_BLOCK_COLUMNS, EMBED_SUB_BLOCK, EMBED_SHIFT,
) = range(0, 96, 8)  # fmt: skip


def embed_tiles(args, state, thread, threads):
    """From a quant with an unpacker: a tile whose lanes are all the same row. A shift below 0: the quant has minima."""
    tile = peek_i64(state + STATE_SCRATCH) + thread * SCRATCH_BYTES
    blocks, columns = peek_i64(args + EMBED_BLOCKS), peek_i64(args + EMBED_BLOCK_COLUMNS)
    sub_block, shift, scale = peek_i64(args + EMBED_SUB_BLOCK), peek_i64(args + EMBED_SHIFT), peek_f32(args + EMBED_SCALE)
    tokens, ids = peek_i64(state + STATE_TOKENS), peek_i64(state + STATE_IDS)
    for t in range(tokens * thread // threads, tokens * (thread + 1) // threads):
        source = peek_i64(args) + peek_i32(ids + 4 * t) * peek_i64(args + EMBED_ROW_BYTES)
        out = peek_i64(args + EMBED_OUT) + t * peek_i64(args + EMBED_OUT_STRIDE)
        done = 0
        while done < blocks:
            now = min(256 // columns, blocks - done)
            call_kernel(peek_i64(args + EMBED_UNPACK), source + done * peek_i64(args + EMBED_BLOCK_BYTES), 0, tile, now)
            for c in range(now * columns):
                d, q = peek_f32(tile + SCALES + VECTOR_BYTES * (c // sub_block)), peek_u8(tile + VECTOR_BYTES * (c // 4) + c % 4)
                if shift < 0:
                    value = d * q + peek_f32(tile + MINIMA + VECTOR_BYTES * (c // sub_block))
                else:
                    value = d * (q - (1 << shift))
                poke_f32(out + 4 * (done * columns + c), value * scale)
            done += now


def embed_generic(args, state, thread, threads):
    """From a quant with a dequantiser only."""
    blocks = peek_i64(args + EMBED_BLOCKS)
    scale, width = peek_f32(args + EMBED_SCALE), peek_i64(args + EMBED_WIDTH)
    tokens, ids = peek_i64(state + STATE_TOKENS), peek_i64(state + STATE_IDS)
    for t in range(tokens * thread // threads, tokens * (thread + 1) // threads):
        source = peek_i64(args) + peek_i32(ids + 4 * t) * peek_i64(args + EMBED_ROW_BYTES)
        out = peek_i64(args + EMBED_OUT) + t * peek_i64(args + EMBED_OUT_STRIDE)
        call_kernel(peek_i64(args + EMBED_UNPACK), source, blocks, out, 0)
        for c in range(width):
            poke_f32(out + 4 * c, peek_f32(out + 4 * c) * scale)


def make_embed(load, peek, itemsize):
    """`kernel` for a table of floats."""

    @inline
    def row(source, out, width, scale):
        whole = width - width % LANES
        for c in range(0, whole, LANES):
            store_f32(out + 4 * c, load(source + itemsize * c) * splat_f32(scale))
        for c in range(whole, width):
            poke_f32(out + 4 * c, peek(source + itemsize * c) * scale)

    def kernel(args, state, thread, threads):
        scale, width = peek_f32(args + EMBED_SCALE), peek_i64(args + EMBED_WIDTH)
        tokens, ids = peek_i64(state + STATE_TOKENS), peek_i64(state + STATE_IDS)
        for t in range(tokens * thread // threads, tokens * (thread + 1) // threads):
            source = peek_i64(args) + peek_i32(ids + 4 * t) * peek_i64(args + EMBED_ROW_BYTES)
            row(source, peek_i64(args + EMBED_OUT) + t * peek_i64(args + EMBED_OUT_STRIDE), width, scale)

    return kernel


embed_f32 = make_embed(load_f32, peek_f32, 4)
embed_f16 = make_embed(load_f16, peek_f16, 2)
embed_bf16 = make_embed(load_bf16, peek_bf16, 2)
