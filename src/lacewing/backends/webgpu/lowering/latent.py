"""A matrix for each head, as latent attention has them."""

from __future__ import annotations

from typing import Any

from lacewing.backends.webgpu.compiler import Compiler, lowers
from lacewing.backends.webgpu.lowering.linear import FEW
from lacewing.backends.webgpu.plan import WIDEST
from lacewing.errors import UnsupportedModelError
from lacewing.program import ops

THREADS = 128
TILE = 64  # rows and tokens of a tile of `head_matmul`


@lowers(ops.HeadLinear)
def head_linear(compiler: Compiler, op: ops.HeadLinear) -> None:
    """Activations stay float32: the sums of few values that these matrices make would suffer most from bytes."""
    outputs, inputs = compiler.program.weights[op.weight][1:]
    if op.transposed:
        outputs, inputs = inputs, outputs
    matrix = compiler.matrix((op.weight,), outputs, op.transposed)
    lanes = 1
    while lanes < min(compiler.variant.lanes, matrix.groups):
        lanes *= 2
    rest = op.x.width // op.heads - inputs
    row_groups, copies = -(-op.heads * outputs // (THREADS // lanes)), -(-op.heads * rest // THREADS)
    if len(matrix.shards) > 1 or row_groups + copies > WIDEST:
        raise UnsupportedModelError(f"weight {op.weight} is too large for one product of heads on the GPU; use --backend cpu")
    constants: dict[str, Any] = {
        "layout": matrix.layout, "groups": matrix.groups, "columns": inputs, "outputs": outputs, "rest": rest, "heads": op.heads,
        "x": compiler.at(op.x), "out": compiler.at(op.out), "lanes": lanes, "threads": THREADS,
    }  # fmt: skip
    planes = matrix.shards[0].planes
    few = row_groups + copies
    compiler.dispatch("head_matvec", constants, planes, lambda run: (few, run.tokens, 1) if run.tokens <= FEW else None)
    if compiler.limits.chunk > FEW:
        across = -(-outputs // TILE)
        compiler.dispatch(
            "head_matmul",
            constants,
            planes,
            lambda run: (across, -(-run.tokens // TILE), op.heads) if run.tokens > FEW else None,
        )
        if rest:
            wide = -(-op.heads * rest // 64)
            compiler.dispatch("head_rest", constants, [], lambda run: (wide, run.tokens, 1) if run.tokens > FEW else None)
    compiler.written(op.out)
