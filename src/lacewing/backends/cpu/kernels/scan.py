"""The selective scan of Mamba-2: a block of a head's state stays in the first cache while all tokens of a run pass through it.

Some tokens at once share each load and store of the state. A value of the state sees the same operations in the same order however
the tokens are divided, so a prompt in any pieces leaves the bits that single tokens leave.
"""

from typing import Any

from llvmlite import ir
from numba import float32, types

from lacewing.backends.cpu.arguments import MAX_CHUNK, SCAN, SCRATCH_BYTES, STATE
from lacewing.backends.cpu.kernels.attention.steps import make_zeros
from lacewing.backends.cpu.kernels.gemm.dot import emit_fma, emit_load
from lacewing.backends.cpu.kernels.simd.functions import exp, softplus
from lacewing.backends.cpu.kernels.simd.instructions import (
    fma1,
    load_f32,
    peek_f32,
    peek_i32,
    peek_i64,
    poke_f32,
    select_lt,
    splat_f32,
    store_f32,
)
from lacewing.backends.cpu.kernels.simd.registers import (
    F32,
    F32V,
    GIVEN,
    ISA,
    LANES,
    VECTOR_BYTES,
    f32v,
    inline,
    instruction,
    splat,
)

TOGETHER = 4 if ISA.lanes == 16 or ISA.name == "neon" else 2  # tokens whose sums fit the registers
BLOCK = 2  # registers of columns
ROW_BYTES = BLOCK * VECTOR_BYTES  # of a state's block in scratch
DECAYS, ZEROS, BLOCKS = 4 * MAX_CHUNK, 8 * MAX_CHUNK, 8 * MAX_CHUNK + 1024  # where they begin in scratch, behind the time steps


def make_step(tokens: int, columns: int) -> Any:
    """`step(sums, x, decays, source, to, b, b_stride, c, c_stride)`: one row of the state passes `tokens` tokens.

    For each: row = decay * row + b * x, sums += c * row. `x` and `sums` are tuples of tokens times columns.
    """

    @instruction(GIVEN, GIVEN, GIVEN, GIVEN, *[types.int64] * 6)
    def step(builder, made, x, decays, source, to, b, b_stride, c, c_stride):
        rows = [emit_load(builder, source, VECTOR_BYTES * column, F32V) for column in range(columns)]
        for t in range(tokens):
            index = ir.Constant(b_stride.type, t)
            ins, outs = (
                splat(builder, emit_load(builder, builder.add(at, builder.mul(stride, index)), 0, F32))
                for at, stride in ((b, b_stride), (c, c_stride))
            )
            for column in range(columns):
                at = t * columns + column
                kept = builder.fmul(rows[column], builder.extract_value(decays, t))
                rows[column] = emit_fma(builder, ins, builder.extract_value(x, at), kept)
                made = builder.insert_value(made, emit_fma(builder, outs, rows[column], builder.extract_value(made, at)), at)
        for column in range(columns):
            place = builder.add(to, ir.Constant(to.type, VECTOR_BYTES * column))
            builder.store(rows[column], builder.inttoptr(place, F32V.as_pointer()), align=4)
        return made

    return step


def make_gather(tokens: int, columns: int) -> Any:
    """`gather(x, stride, factors)`: registers of each token, times its factor; `factors`: address of float32."""

    @instruction(types.UniTuple(f32v, tokens * columns), types.int64, types.int64, types.int64)
    def gather(b, x, stride, factors):
        made = ir.Constant(ir.ArrayType(F32V, tokens * columns), ir.Undefined)
        for t in range(tokens):
            row = b.add(x, b.mul(stride, ir.Constant(stride.type, t)))
            factor = splat(b, emit_load(b, factors, 4 * t, F32))
            for column in range(columns):
                value = b.fmul(emit_load(b, row, VECTOR_BYTES * column, F32V), factor)
                made = b.insert_value(made, value, t * columns + column)
        return made

    return gather


def make_spread(count: int) -> Any:
    """`spread(p)`: `count` float32, each in a whole register."""

    @instruction(types.UniTuple(f32v, count), types.int64)
    def spread(b, p):
        made = ir.Constant(ir.ArrayType(F32V, count), ir.Undefined)
        for index in range(count):
            made = b.insert_value(made, splat(b, emit_load(b, p, 4 * index, F32)), index)
        return made

    return spread


def make_finish(tokens: int, columns: int) -> Any:
    """`finish(sums, x, x_stride, out, out_stride, skip)`: out = sums + skip * x."""

    @instruction(types.void, GIVEN, *[types.int64] * 4, types.float32)
    def finish(b, sums, x, x_stride, out, out_stride, skip):
        factor = splat(b, skip)
        for t in range(tokens):
            row, to = (b.add(at, b.mul(stride, ir.Constant(stride.type, t))) for at, stride in ((x, x_stride), (out, out_stride)))
            for column in range(columns):
                value = emit_load(b, row, VECTOR_BYTES * column, F32V)
                value = emit_fma(b, factor, value, b.extract_value(sums, t * columns + column))
                place = b.add(to, ir.Constant(to.type, VECTOR_BYTES * column))
                b.store(value, b.inttoptr(place, F32V.as_pointer()), align=4)

    return finish


def make_pass(tokens: int, columns: int) -> Any:
    """`passed(source, source_step, to, to_step, states, b, b_stride, c, c_stride, times, x, x_stride, out, out_stride, skip)`:
    `tokens` tokens through a block of the state, whose rows are so many bytes apart."""
    step, gather, zeros = make_step(tokens, columns), make_gather(tokens, columns), make_zeros(tokens * columns)
    spread, finish = make_spread(tokens), make_finish(tokens, columns)

    @inline
    def passed(source, source_step, to, to_step, states, b, b_stride, c, c_stride, times, x, x_stride, out, out_stride, skip):
        taken, decays, sums = gather(x, x_stride, times), spread(times + DECAYS), zeros()
        for n in range(states):
            row, next_row = source + n * source_step, to + n * to_step
            sums = step(sums, taken, decays, row, next_row, b + 4 * n, b_stride, c + 4 * n, c_stride)
        finish(sums, x, x_stride, out, out_stride, skip)

    return passed


def make_block(columns: int) -> Any:
    """`walk(args, unit, to, scratch, head, token, first, count)`: all tokens of a run through `columns` registers of a head.

    unit, to: addresses of the head's state before (0: zeros) and after.
    """
    many, one = make_pass(TOGETHER, columns), make_pass(1, columns)

    @inline
    def walk(args, unit, to, scratch, head, token, first, count):
        width, states = peek_i64(args + SCAN.width), peek_i64(args + SCAN.states)
        x_stride, out_stride = peek_i64(args + SCAN.x_stride), peek_i64(args + SCAN.out_stride)
        b_stride, c_stride = peek_i64(args + SCAN.b_stride), peek_i64(args + SCAN.c_stride)
        skip = peek_f32(peek_i64(args + SCAN.skip) + 4 * head)
        at, group = 4 * (head * width + first), head // (peek_i64(args + SCAN.heads) // peek_i64(args + SCAN.groups))
        x = peek_i64(args + SCAN.x) + token * x_stride + at
        out = peek_i64(args + SCAN.out) + token * out_stride + at
        b = peek_i64(args + SCAN.b) + token * b_stride + 4 * group * states
        c = peek_i64(args + SCAN.c) + token * c_stride + 4 * group * states
        source, source_step = (unit + 4 * first, 4 * width) if unit else (scratch + ZEROS, 0)
        place = 0
        while place < count:
            size = TOGETHER if count - place >= TOGETHER else 1
            goes_on = place + size < count
            next_source, next_step = (scratch + BLOCKS, ROW_BYTES) if goes_on else (to + 4 * first, 4 * width)
            xs, outs, times = x + place * x_stride, out + place * out_stride, scratch + 4 * place
            bs, cs = b + place * b_stride, c + place * c_stride
            if size > 1:
                many(source, source_step, next_source, next_step, states, bs, b_stride, cs, c_stride, times, xs, x_stride, outs,
                     out_stride, skip)  # fmt: skip
            else:
                one(source, source_step, next_source, next_step, states, bs, b_stride, cs, c_stride, times, xs, x_stride, outs,
                    out_stride, skip)  # fmt: skip
            source, source_step = next_source, next_step
            place += size

    return walk


walk_block, walk_register = make_block(BLOCK), make_block(1)


@inline
def walk_column(args, unit, to, scratch, head, token, column, count):
    """The same for one column."""
    width, states = peek_i64(args + SCAN.width), peek_i64(args + SCAN.states)
    at, group = 4 * (head * width + column), head // (peek_i64(args + SCAN.heads) // peek_i64(args + SCAN.groups))
    skip, source = peek_f32(peek_i64(args + SCAN.skip) + 4 * head), unit
    for place in range(count):
        value = peek_f32(peek_i64(args + SCAN.x) + (token + place) * peek_i64(args + SCAN.x_stride) + at)
        b = peek_i64(args + SCAN.b) + (token + place) * peek_i64(args + SCAN.b_stride) + 4 * group * states
        c = peek_i64(args + SCAN.c) + (token + place) * peek_i64(args + SCAN.c_stride) + 4 * group * states
        taken, decay, total = value * peek_f32(scratch + 4 * place), peek_f32(scratch + DECAYS + 4 * place), float32(0)
        for n in range(states):
            row = 4 * (n * width + column)
            kept = peek_f32(source + row) * decay if source else float32(0)
            kept = fma1(peek_f32(b + 4 * n), taken, kept)
            total = fma1(peek_f32(c + 4 * n), kept, total)
            poke_f32(to + row, kept)
        poke_f32(peek_i64(args + SCAN.out) + (token + place) * peek_i64(args + SCAN.out_stride) + at, fma1(skip, value, total))
        source = to


@inline
def time_steps(args, scratch, head, token, count):
    """The time step of each token of a run and the decay that follows from it, for one head."""
    dt, stride = peek_i64(args + SCAN.dt) + token * peek_i64(args + SCAN.dt_stride) + 4 * head, peek_i64(args + SCAN.dt_stride)
    bias, decay = peek_f32(peek_i64(args + SCAN.bias) + 4 * head), splat_f32(peek_f32(peek_i64(args + SCAN.decay) + 4 * head))
    low, high = splat_f32(peek_f32(args + SCAN.low)), splat_f32(peek_f32(args + SCAN.high))
    for place in range(count):
        poke_f32(scratch + 4 * place, peek_f32(dt + place * stride) + bias)
    for place in range(0, count, LANES):
        step = softplus(load_f32(scratch + 4 * place))
        step = select_lt(step, low, low, select_lt(high, step, high, step))  # a choice keeps NaN
        store_f32(scratch + 4 * place, step)
        store_f32(scratch + DECAYS + 4 * place, exp(step * decay))


@inline
def scan_run(args, scratch, token, count, unit, to, start, end):
    """The tokens of one row through blocks `start` to `end` of all heads' columns."""
    width, states, last = peek_i64(args + SCAN.width), peek_i64(args + SCAN.states), -1
    blocks = (width + BLOCK * LANES - 1) // (BLOCK * LANES)
    for index in range(start, end):
        head, first = index // blocks, index % blocks * BLOCK * LANES
        if head != last:
            time_steps(args, scratch, head, token, count)
            last = head
        of_head = 4 * head * states * width
        source = unit + of_head if unit else 0
        columns = min(BLOCK * LANES, width - first)
        if columns == BLOCK * LANES:
            walk_block(args, source, to + of_head, scratch, head, token, first, count)
        else:
            whole = columns // LANES * LANES
            if whole:
                walk_register(args, source, to + of_head, scratch, head, token, first, count)
            for column in range(first + whole, first + columns):
                walk_column(args, source, to + of_head, scratch, head, token, column, count)


def selective_scan(args, state, thread, threads):
    """Threads share blocks of columns of all heads evenly."""
    blocks = (peek_i64(args + SCAN.width) + BLOCK * LANES - 1) // (BLOCK * LANES)
    todo = peek_i64(args + SCAN.heads) * blocks
    scratch = peek_i64(state + STATE.scratch) + thread * SCRATCH_BYTES
    for column in range(BLOCK):
        store_f32(scratch + ZEROS + VECTOR_BYTES * column, splat_f32(0.0))
    tokens, rows = peek_i64(state + STATE.tokens), peek_i64(state + STATE.rows)
    units, unit_bytes = peek_i64(args + SCAN.units), peek_i64(args + SCAN.unit_bytes)
    token = 0
    while token < tokens:
        row, count = peek_i32(rows + 4 * token), 1
        while token + count < tokens and peek_i32(rows + 4 * (token + count)) == row:
            count += 1
        index = peek_i32(peek_i64(args + SCAN.units_in) + 4 * row)
        unit = units + index * unit_bytes if index >= 0 else 0
        to = units + peek_i32(peek_i64(args + SCAN.units_out) + 4 * row) * unit_bytes
        scan_run(args, scratch, token, count, unit, to, todo * thread // threads, todo * (thread + 1) // threads)
        token += count
