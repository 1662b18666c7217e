"""The lightning indexer: scores of all positions, and which of them attention sees; some tokens at a time."""

from __future__ import annotations

from lacewing.backends.batch import StepLimits
from lacewing.backends.cuda.arguments import STEP, Store, blocks, pages
from lacewing.backends.cuda.lowering.compiler import RULES, Compiler
from lacewing.backends.cuda.lowering.launches import Grid
from lacewing.backends.gpu.run import Run
from lacewing.errors import UnsupportedModelError
from lacewing.program import ops
from lacewing.program.program import Program

WARPS = 8  # of a block, which has a position each
SCORE_BYTES = 2**26  # of scores; more tokens than fit are done in several passes


def pass_tokens(limits: StepLimits) -> int:
    """Tokens whose scores are there at a time."""
    return min(limits.chunk, max(1, SCORE_BYTES // (4 * limits.context)))


def score_bytes(program: Program, limits: StepLimits) -> int:
    """0 where no run of a program chooses."""
    chooses = any(isinstance(op, ops.SelectKeys) and op.chosen.width < limits.context for op in program.ops)
    return 4 * pass_tokens(limits) * limits.context if chooses else 0


@RULES.rule(ops.SelectKeys)
def select_keys(compiler: Compiler, op: ops.SelectKeys) -> None:
    limits, width, most = compiler.limits, op.q.width // op.heads, op.chosen.width
    if limits.context <= most:
        return
    kv = compiler.page_layout(op.state)
    if kv.index is None:
        raise UnsupportedModelError("an index of positions needs keys of its own in the KV cache; use `backend='reference'`")
    scores, at_once = compiler.scratch("scores of an index", score_bytes(compiler.program, limits)), pass_tokens(limits)
    for first in range(0, limits.chunk, at_once):

        def tokens(run: Run, first: int = first) -> int:
            """Of this pass."""
            return max(0, min(run.tokens - first, at_once)) if run.reach > most else 0

        def scored(run: Run, tokens=tokens) -> Grid | None:  # type: ignore[no-untyped-def]
            return Grid(blocks(min(run.reach, limits.context), WARPS), tokens(run)) if tokens(run) else None

        def selected(run: Run, tokens=tokens) -> Grid | None:  # type: ignore[no-untyped-def]
            return Grid(tokens(run)) if tokens(run) else None

        numbers = [limits.context, op.heads, width, most, first]
        places = [compiler.at(op.q), compiler.at(op.weights)]
        compiler.launch("index_scores", {"KV": kv.dtype}, [STEP, *places, Store(op.state), pages(kv), scores, *numbers], scored)
        compiler.launch("select_keys", {}, [STEP, scores, compiler.at(op.chosen), limits.context, most, first], selected)
