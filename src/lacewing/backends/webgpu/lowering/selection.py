"""The lightning indexer: scores of all positions, and which of them attention sees; some tokens at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lacewing.backends.batch import StepLimits
from lacewing.backends.gpu.run import Run
from lacewing.backends.webgpu.lowering.compiler import RULES, Compiler
from lacewing.backends.webgpu.lowering.dispatches import Grid
from lacewing.errors import UnsupportedModelError
from lacewing.program import ops
from lacewing.program.program import Program

POSITIONS = 64  # that a workgroup scores
SCORE_BYTES = 2**26  # of scores; more tokens than fit are done in several passes
_WIDEST = 256  # values of a key, which a thread keeps in registers
_QUERIES = 2**11  # values in workgroup memory


def row_words(limits: StepLimits) -> int:
    """Of the scores of a token."""
    return -(-limits.context // POSITIONS) * POSITIONS


def pass_tokens(limits: StepLimits) -> int:
    return min(limits.chunk, max(1, SCORE_BYTES // (4 * row_words(limits))))


def score_bytes(program: Program, limits: StepLimits) -> int:
    """0 where no run of a program chooses."""
    chooses = any(isinstance(op, ops.SelectKeys) and op.chosen.width < limits.context for op in program.ops)
    return 4 * pass_tokens(limits) * row_words(limits) if chooses else 0


@RULES.rule(ops.SelectKeys)
def select_keys(compiler: Compiler, op: ops.SelectKeys) -> None:
    limits, width, most = compiler.limits, op.q.width // op.heads, op.chosen.width
    if limits.context <= most:
        return
    kv = compiler.page_layout(op.state)
    if kv.index is None or width > _WIDEST:
        raise UnsupportedModelError(f"an index of {width} values is too wide for the GPU; use `backend='cpu'`")
    constants = {
        "kv": kv, "q": compiler.at(op.q), "weights": compiler.at(op.weights), "chosen": compiler.at(op.chosen), "heads": op.heads,
        "width": width, "most": most, "row_words": row_words(limits),
        "together": max(1, min(op.heads, _QUERIES // (8 * kv.index.chunks))),
    }  # fmt: skip
    scores, at_once = compiler.scratch("scores of an index", score_bytes(compiler.program, limits)), pass_tokens(limits)
    for first in range(0, limits.chunk, at_once):
        begin = compiler.constant(np.array([first], np.uint32))

        def tokens(run: Run, first: int = first) -> int:
            """Of this pass."""
            return max(0, min(run.tokens - first, at_once)) if run.reach > most else 0

        def scored(run: Run, tokens: Callable[[Run], int] = tokens) -> Grid | None:
            reach = min(run.reach, limits.context)
            return (-(-reach // POSITIONS), tokens(run), 1) if tokens(run) else None

        def selected(run: Run, tokens: Callable[[Run], int] = tokens) -> Grid | None:
            return (tokens(run), 1, 1) if tokens(run) else None

        store = compiler.states.buffers[op.state]
        compiler.dispatch("index_scores", constants, [store, scores, begin], scored)
        compiler.dispatch("select_keys", constants, [scores, begin], selected)
