"""From a program to lowered ops: a rule for each kind of op, and what is fused.

Fused: the quantisation of an activation into the op that makes it; QK norm, rotation and storing of a head into one pass.
"""

from __future__ import annotations

from collections.abc import Mapping

from lacewing.backends.batch import StepLimits
from lacewing.backends.cpu.lowering import dense, experts, heads, look_ahead, recurrent, scan, stages, streams
from lacewing.backends.cpu.lowering.context import RULES, Lowering
from lacewing.backends.cpu.state import StateStore
from lacewing.backends.weights import WeightView
from lacewing.program.program import Program

__all__ = ["FAMILIES", "lower"]
FAMILIES = (dense, heads, recurrent, scan, experts, stages, streams)  # the files of rules; importing them fills the table


def lower(program: Program, weights: Mapping[str, WeightView], limits: StepLimits, threads: int = 1) -> Lowering:
    """Walks the program once. Raises UnsupportedModelError for an op or a quant that has no kernel."""
    low = Lowering(program, weights, limits, StateStore(program, limits), threads)
    for position, op in enumerate(program.ops):
        if not isinstance(op, heads.COLLECTED):
            heads.flush(low)
        RULES[op](low, op, program.ops[position + 1 :])
    if limits.look_ahead:
        heads.flush(low)
        look_ahead.lower_guesses(low, [chain for chain in low.chains if chain.last is not None])
    low.program_ops = len(low.ops) - sum(low.ops.index(guess.last) - low.ops.index(guess.first) + 1 for guess in low.guesses)
    return low
