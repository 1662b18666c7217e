"""Collects what happens to each head before attention, so that norm, rotation and storing are one pass over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lacewing.backends.cpu.arguments import HEADS
from lacewing.backends.cpu.plan import LoweredOp, float_word
from lacewing.program.ops import Norm, Op, Rope, View, WriteKeysValues

if TYPE_CHECKING:
    from lacewing.backends.cpu.lower import Lowering


@dataclass
class _Job:
    view: View
    heads: int
    norm: Norm | None = None
    rope: Rope | None = None
    keys: int = 0
    values: int = 0


class HeadJobs:
    """At most one pending job a view; flushed before any other op, all of them after one barrier."""

    def __init__(self, lowering: Lowering):
        self.lowering = lowering
        self.jobs: dict[View, _Job] = {}

    def takes_norm(self, op: Norm, rest: tuple[Op, ...]) -> bool:
        """Whether a norm belongs to a head that is rotated next; if so it is kept."""
        if op.x != op.out or op.add is not None or op.x in self.jobs:
            return False
        for later in rest:
            if isinstance(later, Rope) and later.x == op.x:
                if later.heads != op.heads:
                    return False
                self.jobs[op.x] = _Job(op.x, op.heads, norm=op)
                return True
            if not isinstance(later, (Norm, Rope, WriteKeysValues)):
                return False
        return False

    def rope(self, op: Rope) -> None:
        job = self.jobs.get(op.x)
        if job is not None and (job.rope is not None or job.keys or job.heads != op.heads):
            self.flush()
            job = None
        if job is None:
            job = self.jobs[op.x] = _Job(op.x, op.heads)
        job.rope = op

    def write(self, k: View, v: View | None, layer: int) -> None:
        heads = self.lowering.program.layers[layer].key_heads
        for view in (k, v):
            if view is not None and view in self.jobs and self.jobs[view].heads != heads:
                self.flush()
        self.jobs.setdefault(k, _Job(k, heads)).keys = int(self.lowering.keys[layer].ctypes.data)
        if v is not None:
            self.jobs.setdefault(v, _Job(v, heads)).values = int(self.lowering.values[layer].ctypes.data)

    def flush(self) -> None:
        jobs, self.jobs = list(self.jobs.values()), {}
        for index, job in enumerate(jobs):
            self.lowering.emit(self._lowered(job, barrier=index == 0), job.view)

    def _lowered(self, job: _Job, barrier: bool) -> LoweredOp:
        low, norm, rope = self.lowering, job.norm, job.rope
        made = LoweredOp(
            f"heads.heads_{low.kind}", HEADS, x=low.at(job.view), stride=low.stride(job.view), count=job.heads,
            width=job.view.width // job.heads, keys=job.keys, values=job.values,
        )  # fmt: skip
        made.barrier = barrier
        if norm is not None:
            weight = low.memory.vector(low.weights, norm.weight, norm.weight_offset) if norm.weight else 0
            made.set(norm=1, weight=weight, eps=float_word(norm.eps))
        if rope is not None:
            made.set(
                start=rope.start, angles=low.angles(rope.rope), pairs=len(rope.rope.frequencies), adjacent=int(rope.rope.adjacent)
            )
        return made
