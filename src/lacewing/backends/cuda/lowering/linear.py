"""Products with weights: linear ops, the logits, and the matrices of heads that latent attention has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lacewing.backends.cuda.arguments import NULL, STEP, Matrix, Outs, Pointer, blocks
from lacewing.backends.cuda.lowering.compiler import RULES, Compiler
from lacewing.backends.cuda.lowering.launches import Grid
from lacewing.backends.gpu.layouts import GROUP, RUN
from lacewing.backends.gpu.run import Run
from lacewing.program import ops
from lacewing.program.ops import View

WARPS = 8  # of a block of a GEMV, which has a row each
GEMV_TOKENS = 16  # tokens, or rows of logits, up to which a product is a GEMV
BATCHES = (1, 4)  # tokens that a warp takes together
TILE = 64  # rows and tokens of a block of a GEMM
MOST_OUTS = 4


@RULES.rule(ops.Linear)
def linear(compiler: Compiler, op: ops.Linear) -> None:
    biases = op.biases or (None,) * len(op.weights)
    for members in _joined(compiler, op):
        matrix = compiler.matrix([op.weights[index] for index in members])
        widths = [op.outs[index].width for index in members]
        outs = Outs(tuple(compiler.at(op.outs[index]) for index in members), tuple(widths))
        bias = _joined_bias(compiler, [biases[index] for index in members], widths)
        product(compiler, op.x, matrix, outs, bias)


def _joined(compiler: Compiler, op: ops.Linear) -> list[list[int]]:
    """The indices of the op's weights, those together that can be one matrix: of one quant, and made of whole runs."""
    joined: dict[object, list[int]] = {}
    for index, name in enumerate(op.weights):
        weight = compiler.weights[name]
        whole = weight.shape[0] * blocks(weight.shape[1], GROUP) % RUN == 0 and weight.scales is None
        joined.setdefault((weight.quant.name, index // MOST_OUTS) if whole else index, []).append(index)
    return list(joined.values())


def _joined_bias(compiler: Compiler, names: Sequence[str | None], widths: Sequence[int]) -> Pointer:
    if not any(names):
        return NULL
    parts = []
    for name, width in zip(names, widths, strict=True):
        weight = compiler.weights[name] if name else None
        parts.append(np.zeros(width, np.float32) if weight is None else weight.quant.dequantise(weight.data).reshape(-1))
    return compiler.constant(np.concatenate(parts).astype(np.float32))


def product(
    compiler: Compiler,
    x: View,
    matrix: Matrix,
    outs: Outs,
    bias: Pointer,
    rows: bool = False,
    scale: float = 1.0,
    softcap: float = 0.0,
) -> None:
    """Launches of x @ matrix.T: GEMVs of few tokens, a GEMM of more. `rows`: of output rows, to logits."""
    label = "logits" if rows else ""
    arguments = [
        STEP, compiler.at(x), matrix.planes, outs, bias, matrix.rows, matrix.groups, matrix.columns, rows, scale, softcap,
    ]  # fmt: skip

    def count_of(run: Run) -> int:
        return run.outputs if rows else run.tokens

    for batch in BATCHES:

        def gemv(run: Run, batch: int = batch) -> Grid | None:
            count = count_of(run)
            fits = 0 < count <= GEMV_TOKENS and batch == next(each for each in (*BATCHES, 0) if each >= min(count, BATCHES[-1]))
            return Grid(blocks(matrix.rows, WARPS), blocks(count, batch)) if fits else None

        compiler.launch("gemv", {"QUANT": matrix.quant, "BATCH": batch}, arguments, gemv, label)

    def gemm(run: Run) -> Grid | None:
        count = count_of(run)
        return Grid(blocks(matrix.rows, TILE), blocks(count, TILE)) if count > GEMV_TOKENS else None

    compiler.launch("gemm", {"QUANT": matrix.quant}, arguments, gemm, label)


@RULES.rule(ops.Logits)
def logits(compiler: Compiler, op: ops.Logits) -> None:
    matrix = compiler.matrix((op.weight,))
    outs = Outs((compiler.logits,), (matrix.rows,), compiler.program.vocab_size)
    product(compiler, op.x, matrix, outs, compiler.vector(op.bias), True, float(op.scale), float(op.softcap or 0.0))


@RULES.rule(ops.HeadLinear)
def head_linear(compiler: Compiler, op: ops.HeadLinear) -> None:
    outputs, inputs = compiler.program.weights[op.weight][1:]
    if op.transposed:
        outputs, inputs = inputs, outputs
    matrix = compiler.matrix((op.weight,), op.transposed)
    rest = op.x.width // op.heads - inputs
    arguments = [compiler.at(op.x), matrix.planes, compiler.at(op.out), outputs, inputs, matrix.groups, rest]
    across = blocks(outputs + rest, WARPS)
    compiler.launch("head_linear", {"QUANT": matrix.quant}, arguments, lambda run: Grid(across, op.heads, run.tokens))
