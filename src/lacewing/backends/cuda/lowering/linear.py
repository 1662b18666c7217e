"""Products with weights: linear ops, the logits, and the matrices of heads that latent attention has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lacewing.backends.cuda.arguments import NULL, Outs, Pointer, blocks
from lacewing.backends.cuda.lowering.compiler import RULES, Compiler
from lacewing.backends.cuda.lowering.inputs import ONE_FROM_GATED, byte_buffers
from lacewing.backends.cuda.lowering.launches import Grid
from lacewing.backends.cuda.lowering.products import Product, can_gate, gated, product
from lacewing.backends.cuda.lowering.routes import routed
from lacewing.backends.cuda.lowering.rows import activate
from lacewing.backends.gpu.fusions import unused
from lacewing.backends.gpu.layouts import GROUP, RUN
from lacewing.program import ops

WARPS = 8  # of a block of a matrix for each head, which has a row each
MOST_OUTS = 4


@RULES.rule(ops.Linear)
def linear(compiler: Compiler, op: ops.Linear) -> None:
    biases = op.biases or (None,) * len(op.weights)
    if _gated(compiler, op) or routed(compiler, op):
        return
    for members in _joined(compiler, op):
        matrix = compiler.matrix([op.weights[index] for index in members])
        widths = [op.outs[index].width for index in members]
        outs = Outs(tuple(compiler.at(op.outs[index]) for index in members), tuple(widths))
        bias = _joined_bias(compiler, [biases[index] for index in members], widths)
        product(compiler, Product(op.x, matrix, outs, bias))


def _gated(compiler: Compiler, op: ops.Linear) -> bool:
    """Of one token, a gate's product and the activation that is all that becomes of it in one kernel, where there is one."""
    program, index = compiler.program.ops, compiler.index
    after = program[index + 1] if index + 1 < len(program) else None
    if not isinstance(after, ops.GatedActivation) or op.outs != (after.gate, after.up) or any(op.biases):
        return False
    whole = after.gate.width == after.up.width == after.out.width and after.out.width % GROUP == 0
    aligned = compiler.at(after.out).base % 4 == 0 and compiler.at(after.out).stride % 4 == 0
    gone = all(view == after.out or unused(program, index + 2, view) for view in op.outs)
    if not whole or not aligned or not gone or after.out.overlaps(op.x) or len(_joined(compiler, op)) > 1:
        return False
    matrix = compiler.matrix(op.weights)
    if not can_gate(compiler, matrix, after.activation):
        return False
    made = byte_buffers(compiler, ONE_FROM_GATED)
    gated(compiler, op.x, matrix, after.out, after.activation, made)
    widths = [view.width for view in op.outs]
    outs = Outs(tuple(compiler.at(view) for view in op.outs), tuple(widths))
    product(compiler, Product(op.x, matrix, outs, NULL), fewest=2)
    compiler.index += 1  # what the launch makes is the activation's result
    activate(compiler, after, 2)
    compiler.index = index
    compiler.prepared[ONE_FROM_GATED] = (after.out, False), index + 2
    compiler.done.add(index + 1)
    return True


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


@RULES.rule(ops.Logits)
def logits(compiler: Compiler, op: ops.Logits) -> None:
    matrix = compiler.matrix((op.weight,))
    outs = Outs((compiler.logits,), (matrix.rows,), compiler.program.vocab_size)
    product(compiler, Product(op.x, matrix, outs, compiler.vector(op.bias), True, float(op.scale), float(op.softcap or 0.0)))


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
