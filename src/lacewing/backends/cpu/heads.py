"""Collects what happens to each head before attention, so that norm, rotation and storing are one pass over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lacewing.backends.cpu.plan import LoweredOp, Word, float_word
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

    def write(self, op: WriteKeysValues) -> None:
        heads = self.lowering.program.layers[op.layer].key_heads
        for view in (op.k, op.v):
            if view in self.jobs and self.jobs[view].heads != heads:
                self.flush()
        self.jobs.setdefault(op.k, _Job(op.k, heads)).keys = int(self.lowering.keys[op.layer].ctypes.data)
        self.jobs.setdefault(op.v, _Job(op.v, heads)).values = int(self.lowering.values[op.layer].ctypes.data)

    def flush(self) -> None:
        jobs, self.jobs = list(self.jobs.values()), {}
        for index, job in enumerate(jobs):
            self.lowering.emit(self._lowered(job, barrier=index == 0), job.view)

    def _lowered(self, job: _Job, barrier: bool) -> LoweredOp:
        low, norm, rope = self.lowering, job.norm, job.rope
        words: dict[int, Word] = {0: low.at(job.view), 8: low.stride(job.view), 16: job.heads, 24: job.view.width // job.heads}
        words |= {32: 0, 40: 0, 48: 0, 56: 0, 64: 0, 72: 0, 80: job.keys, 88: job.values}
        if norm is not None:
            weight = low.memory.vector(low.weights, norm.weight, norm.weight_offset) if norm.weight else 0
            words |= {32: 1, 40: weight, 48: float_word(norm.eps)}
        if rope is not None:
            words |= {56: low.angles(rope.rope), 64: len(rope.rope.frequencies), 72: int(rope.rope.adjacent)}
        return LoweredOp(f"heads.heads_{low.kind}", words, barrier)
