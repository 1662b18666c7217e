"""Stages of a part of a split program on the CPU: which lowered ops each has, and what is copied into and out of its buffers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lacewing.backends.cpu.plan import LoweredOp, Memory
from lacewing.program import ops
from lacewing.program.ops import Op, View

if TYPE_CHECKING:
    from lacewing.backends.cpu.lower import Lowering


@dataclass
class Stage:
    """Begins behind the lowered op `after`; None: with the first. Ops that are put before all others belong to the first stage."""

    after: LoweredOp | None
    received: tuple[View, ...]
    sent: tuple[View, ...] = ()


class Staging:
    """The rules for `Receive` and `Send`, of a lowering."""

    stages: list[Stage]

    def lower_Receive(self: Any, op: ops.Receive, rest: tuple[Op, ...]) -> None:
        low: Lowering = self
        for view in op.outs:
            low.at(view)
        low.forget(op.outs)
        low.sorted.difference_update(op.outs)
        low.stages.append(Stage(low.ops[-1] if low.ops else None, op.outs))

    def lower_Send(self: Any, op: ops.Send, rest: tuple[Op, ...]) -> None:
        self.stages[-1].sent = op.xs


def ranges(stages: Sequence[Stage], lowered: Sequence[LoweredOp]) -> list[tuple[int, int]]:
    """The first lowered op of each stage, and the one behind its last."""
    places = {id(op): place for place, op in enumerate(lowered)}
    first = [0 if stage.after is None or not place else places[id(stage.after)] + 1 for place, stage in enumerate(stages)]
    return list(zip(first, [*first, len(lowered)][1:], strict=True))


def columns(memory: Memory, view: View, count: int) -> np.ndarray:
    """Float32 (count, width): the view's own memory."""
    rows = memory.buffers[view.buffer.name].view(np.float32).reshape(memory.chunk, -1)
    return rows[:count, view.start : view.start + view.width]
