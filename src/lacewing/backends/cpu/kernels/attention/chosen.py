"""Latent attention over positions that were chosen before, in blocks of 128 of them. Semantics: program/ops.py, SelectKeys.

A token that sees no more positions than can be chosen takes them from their pages; the same blocks in the same order as dense
attention has, so that the bits are the same. Else keys are gathered, LANES at a time, in the order in which pages have them.
"""

from typing import Any

from lacewing.backends.cpu.arguments import ATTENTION, SCRATCH_BYTES, STATE
from lacewing.backends.cpu.kernels.attention.attention import MAX_QUERIES, gather_queries, make_blocks, put_results, soften
from lacewing.backends.cpu.kernels.attention.stored import BLOCK, F16_STORED, F32_STORED, Q8_STORED, Stored
from lacewing.backends.cpu.kernels.simd.instructions import peek_f32, peek_i32, peek_i64
from lacewing.backends.cpu.kernels.simd.registers import LANES, VECTOR_BYTES, inline
from lacewing.backends.cpu.kernels.simd.threads import atomic_add


def make_chosen(stored: Stored) -> Any:
    """`kernel`: shares (token, group of heads) among the threads."""
    block_scores, block_values = make_blocks(stored)
    row_bytes, key_to_value, copy_key = stored.row_bytes, stored.key_to_value, stored.copy_key

    @inline
    def attend(args, state, scratch, token, first_head, group):
        """One token, `group` heads."""
        width, value_width = peek_i64(args + ATTENTION.key_width), peek_i64(args + ATTENTION.value_width)
        q, p = scratch, scratch + 4 * MAX_QUERIES * width
        acc, most = p + 4 * MAX_QUERIES * BLOCK, p + 4 * MAX_QUERIES * (BLOCK + value_width)
        total = most + 4 * MAX_QUERIES
        block = total + VECTOR_BYTES * MAX_QUERIES  # of values
        gathered = block + row_bytes(value_width) * BLOCK
        gather_queries(args, q, acc, most, total, token, 1, first_head, group)
        page_bytes, keys = peek_i64(args + ATTENTION.page_bytes), peek_i64(args + ATTENTION.keys)
        row = peek_i32(peek_i64(state + STATE.rows) + 4 * token)
        table = peek_i64(args + ATTENTION.table) + row * peek_i64(args + ATTENTION.table_stride)
        chosen = peek_i64(args + ATTENTION.chosen) + token * peek_i64(args + ATTENTION.chosen_stride)
        count = peek_i32(peek_i64(state + STATE.positions) + 4 * token) + 1
        everything = count <= peek_i64(args + ATTENTION.most)
        count = min(count, peek_i64(args + ATTENTION.most))
        for first in range(0, count, BLOCK):
            seen = min(BLOCK, count - first)
            for j in range(0, seen, LANES):
                lanes, at = min(LANES, seen - j), gathered
                if everything:
                    at = keys + peek_i32(table + 4 * (first // BLOCK)) * page_bytes + row_bytes(width) * j
                else:
                    for lane in range(lanes):
                        position = peek_i32(chosen + 4 * (first + j + lane))
                        page = keys + peek_i32(table + 4 * (position // BLOCK)) * page_bytes
                        source = page + row_bytes(width) * (position % BLOCK // LANES * LANES)
                        copy_key(source, width, position % LANES, gathered, lane)
                block_scores(q, group, width, at, p + 4 * j, lanes, 0, 0)
                for lane in range(lanes):
                    key_to_value(at, width, lane, value_width, block + row_bytes(value_width) * (j + lane))
            for i in range(group):
                sums, to = total + VECTOR_BYTES * i, acc + 4 * value_width * i
                soften(
                    p + 4 * BLOCK * i, first, 0, count - 1, peek_f32(args + ATTENTION.softcap), most + 4 * i, sums, to, value_width
                )
            block_values(acc, group, value_width, block, p, seen)
        put_results(args, acc, most, total, token, 1, first_head, group)

    def kernel(args, state, thread, threads):
        scratch = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
        group = peek_i64(args + ATTENTION.group)
        parts = peek_i64(args + ATTENTION.heads) // group
        while True:
            index = atomic_add(peek_i64(args + ATTENTION.counter), 1)
            if index >= parts * peek_i64(state + STATE.tokens):
                break
            attend(args, state, scratch, index // parts, index % parts * group, group)

    return kernel


attention_f16, attention_f32 = make_chosen(F16_STORED), make_chosen(F32_STORED)
attention_q8_0 = make_chosen(Q8_STORED)
