"""The layout of the KV cache within a page, for each type that it may have: float16, float32, and blocks of 32 with a scale (Q8_0).

A page is 128 positions. Keys of a head lie in groups of LANES positions, [position / LANES][column][position % LANES], so that
attention scores LANES positions at once; values lie position by position, [position][column].

Q8_0: 32 columns of a head and position share a float16 scale (quants/q8_0.py). A group of keys has, for each 32 columns, LANES
scales and then bytes [column][lane]; a row of values is blocks as in a file.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba import float32

from lacewing.backends.cpu.kernels.gemm.dot import emit_load
from lacewing.backends.cpu.kernels.simd.instructions import (
    load_f32,
    max_f32,
    peek_f16,
    peek_f32,
    peek_i8,
    poke_f16,
    poke_f32,
    poke_i8,
    scatter_i8,
    select_lt,
    splat_f32,
    store_f16,
    store_f32,
    store_i8,
    sum_f32,
    top_f32,
    truncate_i32,
)
from lacewing.backends.cpu.kernels.simd.registers import F16, F32, F32V, I8, LANES, VECTOR_BYTES, inline, splat

BLOCK = 128  # positions of a page, and between two corrections of attention's running maximum
Q8_COLUMNS, Q8_BYTES = 32, 34


class Stored(NamedTuple):
    """What kernels do with a type. `column_bytes`: of one column of LANES keys; the `emit_` functions load LANES as float32."""

    quantised: bool
    column_bytes: int
    row_bytes: Any  # (width): of one position of a head
    element: Any  # (row, column): one value
    store_key: Any  # (x, width, group, lane)
    store_value: Any  # (x, width, row)
    key_to_value: Any  # (group, width, lane, value_width, row): latent attention's values are the first columns of its keys
    copy_key: Any  # (group, width, lane, to_group, to_lane)
    emit_keys: Any  # (builder, column, scales)
    emit_values: Any  # (builder, row from a column on, scales, which register)


def make_floats(half: bool) -> Stored:
    itemsize, poke, store, peek = (2, poke_f16, store_f16, peek_f16) if half else (4, poke_f32, store_f32, peek_f32)

    @inline
    def row_bytes(width):
        return itemsize * width

    @inline
    def element(row, column):
        return peek(row + itemsize * column)

    @inline
    def store_key(x, width, group, lane):
        for c in range(width):
            poke(group + itemsize * (LANES * c + lane), peek_f32(x + 4 * c))

    @inline
    def store_value(x, width, row):
        whole = width - width % LANES
        for c in range(0, whole, LANES):
            store(row + itemsize * c, load_f32(x + 4 * c))
        for c in range(whole, width):
            poke(row + itemsize * c, peek_f32(x + 4 * c))

    @inline
    def key_to_value(group, width, lane, value_width, row):
        for c in range(value_width):
            poke(row + itemsize * c, peek(group + itemsize * (LANES * c + lane)))

    @inline
    def copy_key(group, width, lane, to_group, to_lane):
        for c in range(width):
            poke(to_group + itemsize * (LANES * c + to_lane), peek(group + itemsize * (LANES * c + lane)))

    def emit(b: ir.IRBuilder, base: ir.Value, _scales: ir.Value, register: int = 0) -> ir.Value:
        if half:
            return b.fpext(emit_load(b, base, 2 * LANES * register, ir.VectorType(F16, LANES)), F32V)
        return emit_load(b, base, VECTOR_BYTES * register, F32V)

    return Stored(False, itemsize * LANES, row_bytes, element, store_key, store_value, key_to_value, copy_key, emit, emit)


@inline
def q8_row_bytes(width):
    return (width + Q8_COLUMNS - 1) // Q8_COLUMNS * Q8_BYTES


@inline
def q8_element(row, column):
    block = row + column // Q8_COLUMNS * Q8_BYTES
    return peek_f16(block) * float32(peek_i8(block + 2 + column % Q8_COLUMNS))


@inline
def q8_scale(x):
    """Of 32 values. What is no number or infinite makes it NaN, so that it shows."""
    zero = splat_f32(0.0)
    most, wrong = zero, zero
    for c in range(0, Q8_COLUMNS, LANES):
        values = load_f32(x + 4 * c)
        most = max_f32(most, max_f32(values, zero - values))
        wrong = wrong + values * zero
    return top_f32(most) / float32(127) + sum_f32(wrong)


@inline
def q8_codes(x, inverse):
    """LANES values, rounded, halves away from zero."""
    scaled = load_f32(x) * splat_f32(inverse)
    return truncate_i32(scaled + select_lt(scaled, splat_f32(0.0), splat_f32(-0.5), splat_f32(0.5)))


@inline
def q8_store_key(x, width, group, lane):
    for first in range(0, width, Q8_COLUMNS):
        d = q8_scale(x + 4 * first)
        inverse = float32(1) / d if d > float32(0) else float32(0)
        poke_f16(group + 2 * lane, d)
        for c in range(0, Q8_COLUMNS, LANES):
            scatter_i8(group + 2 * LANES + LANES * c + lane, q8_codes(x + 4 * (first + c), inverse))
        group += Q8_BYTES * LANES


@inline
def q8_store_value(x, width, row):
    for first in range(0, width, Q8_COLUMNS):
        d = q8_scale(x + 4 * first)
        inverse = float32(1) / d if d > float32(0) else float32(0)
        poke_f16(row, d)
        for c in range(0, Q8_COLUMNS, LANES):
            store_i8(row + 2 + c, q8_codes(x + 4 * (first + c), inverse))
        row += Q8_BYTES


@inline
def q8_key_to_value(group, width, lane, value_width, row):
    """The last block may have columns that are not used."""
    for _first in range(0, value_width, Q8_COLUMNS):
        poke_f16(row, peek_f16(group + 2 * lane))
        for c in range(Q8_COLUMNS):
            poke_i8(row + 2 + c, peek_i8(group + 2 * LANES + LANES * c + lane))
        row, group = row + Q8_BYTES, group + Q8_BYTES * LANES


@inline
def q8_copy_key(group, width, lane, to_group, to_lane):
    for _first in range(0, width, Q8_COLUMNS):
        poke_f16(to_group + 2 * to_lane, peek_f16(group + 2 * lane))
        for c in range(Q8_COLUMNS):
            poke_i8(to_group + 2 * LANES + LANES * c + to_lane, peek_i8(group + 2 * LANES + LANES * c + lane))
        group, to_group = group + Q8_BYTES * LANES, to_group + Q8_BYTES * LANES


def emit_q8_keys(b: ir.IRBuilder, column: ir.Value, scales: ir.Value) -> ir.Value:
    factors = b.fpext(emit_load(b, scales, 0, ir.VectorType(F16, LANES)), F32V)
    return b.fmul(factors, b.sitofp(emit_load(b, column, 0, ir.VectorType(I8, LANES)), F32V))


def emit_q8_values(b: ir.IRBuilder, base: ir.Value, scales: ir.Value, register: int) -> ir.Value:
    """`scales`: where the block of `base` begins; several registers begin with a block, or lie in one."""
    block = register * LANES // Q8_COLUMNS
    factor = b.fpext(emit_load(b, scales, Q8_BYTES * block, F16), F32)
    columns = emit_load(b, base, register * LANES + (Q8_BYTES - Q8_COLUMNS) * block, ir.VectorType(I8, LANES))
    return b.fmul(splat(b, factor), b.sitofp(columns, F32V))


F16_STORED, F32_STORED = make_floats(half=True), make_floats(half=False)
Q8_STORED = Stored(
    True, LANES, q8_row_bytes, q8_element, q8_store_key, q8_store_value, q8_key_to_value, q8_copy_key, emit_q8_keys, emit_q8_values
)  # fmt: skip
