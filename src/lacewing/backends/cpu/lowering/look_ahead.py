"""The router of the next mixture, applied to the hidden state that this one's router sees: which experts are likely to be chosen.

These ops stand behind all others of a step, and are run by themselves where a run waits for experts anyway. For mixtures whose
router reads a norm of the residual stream, as nearly all do; after others nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lacewing.backends.batch import StepLimits
from lacewing.backends.cpu.lowering.context import RULES, ExpertChain, Guess, Lowering
from lacewing.backends.cpu.lowering.experts import route_op
from lacewing.program import ops
from lacewing.program.ops import Buffer, Op, View
from lacewing.program.program import Program

NORMS = (ops.Norm, ops.AddNorm)
Router = tuple[ops.Norm | ops.AddNorm, ops.Linear, ops.Route]


def routers(program: Program) -> list[Router | None]:
    """Of each mixture the ops that decide, if its residual stream is still there when they have; else None."""
    found: list[Router | None] = []
    for place, op in enumerate(program.ops):
        if isinstance(op, ops.Route):
            found.append(_router(program.ops[: place + 1], op))
    return found


def _router(before: Sequence[Op], route: ops.Route) -> Router | None:
    linear = _maker(before[:-1], route.logits)
    if not isinstance(linear, ops.Linear) or linear.outs != (route.logits,):
        return None
    norm = _maker(before[: before.index(linear)], linear.x)
    if not isinstance(norm, NORMS) or norm.out != linear.x or norm.x.overlaps(norm.out):
        return None
    behind = before[len(before) - list(reversed(before)).index(norm) :]
    return None if any(view.overlaps(norm.x) for op in behind for view in op.writes) else (norm, linear, route)


def _maker(before: Sequence[Op], view: View) -> Op | None:
    """Who wrote a view last."""
    return next((op for op in reversed(before) if any(each.overlaps(view) for each in op.writes)), None)


def guess_bytes(program: Program, limits: StepLimits) -> int:
    """Of the buffers that guesses need, about."""
    found = [router for router in routers(program) if router is not None]
    return 4 * limits.chunk * max((norm.x.width + route.logits.width + 2 * route.ids.width for norm, _, route in found), default=0)


def lower_guesses(low: Lowering, chains: Sequence[ExpertChain]) -> None:
    """For each mixture but the last; `chains` in the order of the program's routers."""
    found = routers(low.program)
    if low.stages or len(found) != len(chains):
        return
    for here, following, chain, next_chain in zip(found, found[1:], chains, chains[1:], strict=False):
        if here is not None and following is not None and here[0].x.width == following[0].x.width:
            first = len(low.ops)
            ids = _lower(low, here[0].x, following)
            low.guesses.append(Guess(chain, next_chain, low.ops[first], low.ops[-1], ids))


def _lower(low: Lowering, hidden: View, router: Router) -> View:
    """Where the ids are then."""
    norm, linear, route = router
    normed = Buffer("guess_normed", hidden.width).view()
    scores = Buffer("guess_scores", route.logits.width).view()
    ids, weights = Buffer("guess_ids", route.ids.width).view(), Buffer("guess_weights", route.ids.width).view()
    copied = ops.Norm(
        hidden, norm.weight, normed, norm.eps, weight_offset=norm.weight_offset, bias=norm.bias, centred=norm.centred
    )  # fmt: skip
    for op in (copied, replace(linear, x=normed, outs=(scores,))):
        RULES[op](low, op, ())
    low.emit(route_op(low, replace(route, logits=scores, ids=ids, weights=weights)), ids, weights)
    return ids
