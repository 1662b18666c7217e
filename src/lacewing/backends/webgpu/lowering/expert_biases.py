"""Biases of stacked experts as their products read them: those of all weights of an expert side by side."""

from __future__ import annotations

from collections.abc import Sequence

from lacewing.backends.gpu.stacks import stacked_biases
from lacewing.backends.webgpu.device.device import Slice
from lacewing.backends.webgpu.lowering.compiler import Compiler
from lacewing.backends.webgpu.weights.matrices import Matrix
from lacewing.backends.webgpu.weights.stacks import ResidentStack
from lacewing.backends.weights import ResidentExperts
from lacewing.program import ops


def expert_bias(compiler: Compiler, op: ops.ExpertLinear, matrix: Matrix, biases: Sequence[str | None]) -> Slice | None:
    """float32 (E, rows of all weights); None where no weight has any. The op is one whose weights are one matrix."""
    shapes = [compiler.weights[name].shape for name in op.weights]
    rows = [shape[2 if op.transposed else 1] for shape in shapes]
    if isinstance(compiler.weights[op.weights[0]], ResidentExperts):
        return _held(compiler, op, matrix, biases, rows)
    if not any(biases):
        return None
    if len(biases) == 1 and biases[0] is not None:
        return compiler.vector(biases[0])
    return compiler.constant(stacked_biases(compiler.weights, shapes[0][0], biases, rows))


def _held(
    compiler: Compiler, op: ops.ExpertLinear, matrix: Matrix, biases: Sequence[str | None], rows: Sequence[int]
) -> Slice | None:
    """Of experts that may be exchanged: in a buffer that nobody else reads."""
    if op.weights not in compiler.held:
        bias = None
        if any(biases):
            values = stacked_biases(compiler.weights, compiler.weights[op.weights[0]].shape[0], biases, rows)
            bias = compiler.own(values.nbytes, "biases of resident experts")
            compiler.device.write(bias.buffer, 0, values)
        compiler.held[op.weights] = ResidentStack(op.weights, tuple(biases), tuple(rows), matrix, bias, op.transposed)
    return compiler.held[op.weights].bias
