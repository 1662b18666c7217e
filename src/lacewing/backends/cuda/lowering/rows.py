"""Embeddings, norms, rotations, activations, short convolutions: what works on each column or head by itself."""

from __future__ import annotations

import math

import numpy as np

from lacewing.backends.cuda.arguments import STEP, Pointer, Store, Struct, blocks
from lacewing.backends.cuda.kernels import kernel
from lacewing.backends.cuda.lowering.compiler import RULES, Compiler
from lacewing.backends.cuda.lowering.heads import lower_heads
from lacewing.backends.cuda.lowering.launches import WIDE_FOURS, WIDE_THREADS, Forms, Grid, fours
from lacewing.backends.gpu.fusions import Activation
from lacewing.backends.gpu.turns import fixed_turns
from lacewing.errors import UnsupportedModelError
from lacewing.program import ops
from lacewing.program.ops import View

WIDEST = 4 * WIDE_FOURS[-1] * WIDE_THREADS
FARTHEST = 2**31 - 1  # a length beyond it is as good as none
MOST_TAPS, MOST_STATES, MOST_ROWS = 8, 256, 256  # of convolutions, scans and delta nets, which threads keep in registers


@RULES.rule(ops.Embed)
def embed(compiler: Compiler, op: ops.Embed) -> None:
    matrix = compiler.matrix((op.weight,))
    arguments = [STEP, matrix.planes, compiler.at(op.out), matrix.groups, matrix.columns, float(op.scale)]
    across = blocks(matrix.groups, 64)
    compiler.launch("embed", {"QUANT": matrix.quant}, arguments, lambda run: Grid(across, run.tokens))


@RULES.rule(ops.Norm)
def norm(compiler: Compiler, op: ops.Norm) -> None:
    if not lower_heads(compiler):
        _norm(compiler, op, None, 1.0)


@RULES.rule(ops.AddNorm)
def add_norm(compiler: Compiler, op: ops.AddNorm) -> None:
    _norm(compiler, ops.Norm(op.x, op.weight, op.out, op.eps, 1, op.weight_offset, op.bias, op.centred), op.add, op.scale)


def _norm(compiler: Compiler, op: ops.Norm, add: View | None, scale: float) -> None:
    """Of x, to which `scale` * `add` is added first, in place."""
    width = op.x.width // op.heads
    each = op.weight is not None and compiler.program.weights[op.weight][0] > width  # heads have weights of their own
    arguments = [
        compiler.at(op.x), compiler.at_or_none(add), compiler.at(op.out), compiler.vector(op.weight), compiler.vector(op.bias),
        width, float(scale), float(op.eps), float(op.weight_offset),
    ]  # fmt: skip
    if op.heads == 1 and _wide(compiler, op.x, add, op.out):
        macros = {"EACH": fours(width)}
        compiler.launch("wide_norm", macros, [*arguments, op.centred], lambda run: Grid(1, run.tokens), forms=Forms(op.out))
    else:
        compiler.launch("row_norm", {}, [*arguments, each, op.centred], lambda run: Grid(op.heads, run.tokens))


def _wide(compiler: Compiler, *views: View | None) -> bool:
    """Whether kernels that keep a row in registers, four values at a time, are for rows of these places."""
    places = [compiler.at(view) for view in views if view is not None]
    aligned = all(place.base % 4 == 0 and place.stride % 4 == 0 for place in places)
    return aligned and all(view is None or (view.width % 4 == 0 and view.width <= WIDEST) for view in views)


@RULES.rule(ops.Rope)
def rope(compiler: Compiler, op: ops.Rope) -> None:
    if lower_heads(compiler):
        return
    pairs = len(op.rope.frequencies)
    turns = compiler.constant(fixed_turns(op.rope.frequencies))
    arguments = [
        STEP, compiler.at(op.x), turns, pairs, op.x.width // op.heads, op.start, op.heads, op.rope.adjacent,
        float(op.rope.magnitude),
    ]  # fmt: skip
    compiler.over("rope", {}, arguments, pairs * op.heads)


@RULES.rule(ops.Hadamard)
def hadamard(compiler: Compiler, op: ops.Hadamard) -> None:
    runs = op.x.width // op.size
    compiler.launch("hadamard", {}, [compiler.at(op.x), op.size], lambda run: Grid(runs, run.tokens), shared=4 * op.size)


@RULES.rule(ops.ScaleByPosition)
def scale_by_position(compiler: Compiler, op: ops.ScaleByPosition) -> None:
    length, offset = min(op.length, FARTHEST), min(op.offset, FARTHEST)
    arguments = [STEP, compiler.at(op.x), op.x.width, float(op.beta), length, offset]
    compiler.over("scale_by_position", {}, arguments, op.x.width)


@RULES.rule(ops.SplitHeads)
def split_heads(compiler: Compiler, op: ops.SplitHeads) -> None:
    start, width = 0, op.x.width // op.heads
    for out in op.outs:
        part = out.width // op.heads
        compiler.over("split_heads", {}, [compiler.at(op.x), compiler.at(out), op.heads, width, start, part], out.width)
        start += part


@RULES.rule(ops.GatedActivation)
def gated_activation(compiler: Compiler, op: ops.GatedActivation) -> None:
    activate(compiler, op, 1)


def activate(compiler: Compiler, op: Activation, fewest: int) -> None:
    """In runs of `fewest` tokens and more."""
    if isinstance(op, ops.GatedActivation):
        known = op.activation in kernel("wide_gated").macros["FUNCTION"]
        if known and op.gate.width == op.out.width and _wide(compiler, op.gate, op.up, op.out):
            arguments = [*[compiler.at(view) for view in (op.gate, op.up, op.out)], op.out.width]
            macros = {"FUNCTION": op.activation, "EACH": fours(op.out.width)}
            compiler.launch(
                "wide_gated", macros, arguments, lambda run: Grid(1, run.tokens) if run.tokens >= fewest else None,
                forms=Forms(op.out, fewest),
            )  # fmt: skip
            return
        _activation(compiler, op.activation, op.gate, op.up, op.out, (), fewest)
        return
    arguments = [*[compiler.at(view) for view in (op.gate, op.up, op.out)], op.out.width]
    if isinstance(op, ops.ClampedActivation):
        compiler.over("clamped", {}, [*arguments, float(op.alpha), float(op.limit)], op.out.width, fewest)
    else:
        compiler.over("limited", {}, [*arguments, float(op.limit)], op.out.width, fewest)


@RULES.rule(ops.Activation)
def activation(compiler: Compiler, op: ops.Activation) -> None:
    _activation(compiler, op.function, op.x, None, op.out, op.constants)


def _activation(
    compiler: Compiler, function: str, x: View, up: View | None, out: View, constants: tuple[float, ...], fewest: int = 1
) -> None:
    """Of x, times `up` where it is given."""
    numbers = Struct(tuple(float(each) for each in (*constants, *[0.0] * (4 - len(constants)))))
    arguments = [compiler.at(x), compiler.at_or_none(up), compiler.at(out), out.width, out.width // x.width, numbers]
    compiler.over("gated", {"FUNCTION": function}, arguments, out.width, fewest)


@RULES.rule(ops.ClampedActivation)
def clamped_activation(compiler: Compiler, op: ops.ClampedActivation) -> None:
    activate(compiler, op, 1)


@RULES.rule(ops.LimitedActivation)
def limited_activation(compiler: Compiler, op: ops.LimitedActivation) -> None:
    activate(compiler, op, 1)


@RULES.rule(ops.ShortConvolution)
def short_convolution(compiler: Compiler, op: ops.ShortConvolution) -> None:
    width, taps = op.x.width, compiler.program.weights[op.weight][1]
    if not 2 <= taps <= MOST_TAPS:
        raise UnsupportedModelError(f"the CUDA backend runs convolutions of 2 to {MOST_TAPS} taps, not {taps}; use `backend='cpu'`")
    vectors: list[Pointer] = [compiler.vector(op.weight), compiler.vector(op.bias)]
    arguments = [STEP, compiler.at(op.x), compiler.at(op.out), *vectors, Store(op.state), width, compiler.fixed_group(op.state)]
    compiler.launch("short_convolution", {"TAPS": taps}, arguments, lambda run: Grid(blocks(width, 64), run.parts))


@RULES.rule(ops.GatedDelta)
def gated_delta(compiler: Compiler, op: ops.GatedDelta) -> None:
    """A block for each head and 32 columns, which walks the tokens of a row; 8 warps share the rows of the state."""
    if op.key_width > MOST_ROWS:
        raise UnsupportedModelError(
            f"the CUDA backend runs delta nets of keys up to {MOST_ROWS}, not {op.key_width}; use `backend='cpu'`"
        )
    places = [compiler.at(view) for view in (op.q, op.k, op.v, op.decay, op.beta, op.out)]
    numbers = Struct((
        op.heads, op.key_heads, op.key_width, op.value_width, int(op.tiled), int(op.by_row), int(op.log_rate),
        compiler.fixed_group(op.state), float(op.scale), float(op.eps),
    ))  # fmt: skip
    arguments = [STEP, *places, Store(op.state), compiler.vector(op.rate), compiler.vector(op.bias), numbers]
    each, across = max(2, _power(blocks(op.key_width, 8))), blocks(op.value_width, 32)
    compiler.launch("gated_delta", {"EACH": each}, arguments, lambda run: Grid(across, op.heads, run.parts))


@RULES.rule(ops.SelectiveScan)
def selective_scan(compiler: Compiler, op: ops.SelectiveScan) -> None:
    width, states, (low, high) = op.x.width // op.heads, op.b.width // op.groups, op.limits
    if states > MOST_STATES:
        raise UnsupportedModelError(f"the CUDA backend scans up to {MOST_STATES} states, not {states}; use `backend='cpu'`")
    places = [compiler.at(view) for view in (op.x, op.b, op.c, op.dt, op.out)]
    highest = float(np.finfo(np.float32).max) if math.isinf(high) else float(high)
    numbers = Struct((width, states, op.heads, op.groups, int(op.log_decay), compiler.fixed_group(op.state), float(low), highest))
    weights = [compiler.vector(name) for name in (op.decay, op.skip, op.bias)]
    each, across = max(4, _power(blocks(states, 4))), blocks(width, 64)
    arguments = [STEP, *places, Store(op.state), *weights, numbers]
    compiler.launch("selective_scan", {"EACH": each}, arguments, lambda run: Grid(across, op.heads, run.parts))


def _power(count: int) -> int:
    """The power of two at or above."""
    return 1 << (count - 1).bit_length()
