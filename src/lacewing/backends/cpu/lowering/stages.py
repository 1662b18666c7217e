"""Rules for a part of a split program: which lowered ops a stage has, and what is copied into and out of its buffers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lacewing.backends.cpu.lowering.context import RULES, LoweredOp, Lowering, Stage
from lacewing.backends.cpu.memory import Memory
from lacewing.program import ops
from lacewing.program.ops import Op, View


@RULES.rule(ops.Receive)
def lower_receive(low: Lowering, op: ops.Receive, rest: tuple[Op, ...]) -> None:
    for view in op.outs:
        low.at(view)
    low.forget(op.outs)
    for view in op.outs:
        low.sorted.pop(view, None)
    low.stages.append(Stage(low.ops[-1] if low.ops else None, op.outs))


@RULES.rule(ops.Send)
def lower_send(low: Lowering, op: ops.Send, rest: tuple[Op, ...]) -> None:
    low.stages[-1].sent = op.xs


def ranges(stages: Sequence[Stage], lowered: Sequence[LoweredOp]) -> list[tuple[int, int]]:
    """The first lowered op of each stage, and the one behind its last."""
    places = {id(op): place for place, op in enumerate(lowered)}
    first = [0 if stage.after is None or not place else places[id(stage.after)] + 1 for place, stage in enumerate(stages)]
    return list(zip(first, [*first, len(lowered)][1:], strict=True))


def columns(memory: Memory, view: View, count: int) -> np.ndarray:
    """Float32 (count, width): the columns themselves, not a copy."""
    rows = memory.buffers[view.buffer.name].view(np.float32).reshape(memory.chunk, -1)
    return rows[:count, view.start : view.start + view.width]
