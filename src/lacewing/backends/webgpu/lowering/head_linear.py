"""Products with a matrix for each head, which latent attention has."""

from __future__ import annotations

from typing import Any

from lacewing.backends.webgpu.lowering.compiler import RULES, Compiler
from lacewing.backends.webgpu.lowering.dispatches import WIDEST
from lacewing.backends.webgpu.lowering.forms import GEMV_TOKENS
from lacewing.errors import UnsupportedModelError
from lacewing.program import ops

HEAD_THREADS, HEAD_TILE = 128, 64  # of a workgroup of a matrix for each head; rows and tokens of a tile


@RULES.rule(ops.HeadLinear)
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
    row_groups, copies = -(-op.heads * outputs // (HEAD_THREADS // lanes)), -(-op.heads * rest // HEAD_THREADS)
    if len(matrix.shards) > 1 or row_groups + copies > WIDEST:
        raise UnsupportedModelError(f"weight {op.weight} is too large for one product of heads on the GPU; use `backend='cpu'`")
    constants: dict[str, Any] = {
        "layout": matrix.layout, "groups": matrix.groups, "columns": inputs, "outputs": outputs, "rest": rest, "heads": op.heads,
        "x": compiler.at(op.x), "out": compiler.at(op.out), "lanes": lanes, "threads": HEAD_THREADS,
    }  # fmt: skip
    planes = matrix.shards[0].planes
    across_rows = row_groups + copies
    compiler.dispatch(
        "head_gemv", constants, planes, lambda run: (across_rows, run.tokens, 1) if run.tokens <= GEMV_TOKENS else None
    )
    if compiler.limits.chunk > GEMV_TOKENS:
        across = -(-outputs // HEAD_TILE)
        compiler.dispatch(
            "head_gemm",
            constants,
            planes,
            lambda run: (across, -(-run.tokens // HEAD_TILE), op.heads) if run.tokens > GEMV_TOKENS else None,
        )
        if rest:
            wide = -(-op.heads * rest // 64)
            compiler.dispatch("head_rest", constants, [], lambda run: (wide, run.tokens, 1) if run.tokens > GEMV_TOKENS else None)
    compiler.written(op.out)
