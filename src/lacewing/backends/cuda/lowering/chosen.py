"""The products of ExpertLinear ops: their matrices, their biases, and up to how many tokens each goes to its experts by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lacewing.backends.cuda.arguments import NULL, Matrix, Outs, Pointer
from lacewing.backends.cuda.kernels import kernel
from lacewing.backends.cuda.lowering.compiler import Compiler
from lacewing.backends.cuda.lowering.inputs import few_pairs
from lacewing.backends.cuda.lowering.products import TENSOR, shared_bytes
from lacewing.backends.cuda.weights.upload import ResidentStack
from lacewing.backends.gpu.stacks import joined, stacked_biases
from lacewing.backends.weights import ResidentExperts
from lacewing.program import ops
from lacewing.program.ops import View


@dataclass(frozen=True)
class Chosen:
    """A product with the rows of the chosen experts: `rows` of each of `parts`.

    `few`: tokens up to which each goes to its experts by itself, 0 where no kernel does that. `tensor`: more go to tensor cores.
    """

    op: ops.ExpertLinear
    matrix: Matrix
    outs: Outs
    bias: Pointer
    rows: int
    parts: int
    experts: int
    few: int
    tensor: bool


def chosen(compiler: Compiler, op: ops.ExpertLinear) -> list[Chosen]:
    """One product of all the op's weights where they can be one matrix, else one of each."""
    biases, key = op.biases or (None,) * len(op.weights), ("experts", *op.weights)
    if key not in compiler.matrices:
        weights = [compiler.weights[name] for name in op.weights]
        stack = weights[0] if len(weights) == 1 else None if op.transposed else joined(weights)
        if stack is None or len(op.outs) > 2:
            return [
                _product(compiler, op, compiler.matrix((name,), op.transposed), (name,), (out,), (bias,))
                for name, out, bias in zip(op.weights, op.outs, biases, strict=True)
            ]
        compiler.matrices[key] = compiler.uploader.matrix([stack], op.transposed)
    return [_product(compiler, op, compiler.matrices[key], op.weights, op.outs, biases)]


def _product(
    compiler: Compiler,
    op: ops.ExpertLinear,
    matrix: Matrix,
    names: tuple[str, ...],
    outs: Sequence[View],
    biases: Sequence[str | None],
) -> Chosen:
    active, parts = op.ids.width, len(outs)
    rows, experts = outs[0].width // active, compiler.weights[op.weights[0]].shape[0]
    places = Outs(tuple(compiler.at(out) for out in outs), (rows,) * parts)
    single = matrix.quant in kernel("expert_bytes").macros["QUANT"] and shared_bytes(matrix) <= compiler.device.most_shared
    tensor = single and matrix.quant in kernel("gemm_mma").macros["QUANT"] and compiler.device.number >= TENSOR
    few = few_pairs(experts, active) if tensor else int(single)
    return Chosen(op, matrix, places, _bias(compiler, op, matrix, names, biases), rows, parts, experts, few, tensor)


def _bias(
    compiler: Compiler, op: ops.ExpertLinear, matrix: Matrix, names: tuple[str, ...], biases: Sequence[str | None]
) -> Pointer:
    """float32 (E, rows of all weights); null where no weight has any."""
    shapes = [compiler.weights[name].shape for name in names]
    rows = [shape[2 if op.transposed else 1] for shape in shapes]
    if isinstance(compiler.weights[names[0]], ResidentExperts):  # they may be swapped: in memory that nobody else reads
        if names not in compiler.held:
            bias = NULL
            if any(biases):
                values = stacked_biases(compiler.weights, shapes[0][0], biases, rows)
                bias = compiler.own(values.nbytes, "biases of resident experts")
                compiler.write(bias, values)
            compiler.held[names] = ResidentStack(names, tuple(biases), tuple(rows), matrix, bias, op.transposed)
        return compiler.held[names].bias
    if not any(biases):
        return NULL
    if len(biases) == 1 and biases[0] is not None:
        return compiler.vector(biases[0])
    return compiler.constant(stacked_biases(compiler.weights, shapes[0][0], biases, rows))
