"""Who computes which experts of a layer that a GPU and the CPU share: a device of a cut program that does nothing but `Dispatch`.

It is on the host, where the ids come by anyway. Which experts the GPU holds, `weights.experts.device` decides by how often they are
used; the uses are counted here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lacewing.backends.base import Backend, DeviceFacts
from lacewing.backends.batch import Batch, StepLimits
from lacewing.backends.stages import not_alone, stages
from lacewing.backends.step import Step
from lacewing.backends.weights import CacheStatistics, WeightView
from lacewing.errors import BackendError
from lacewing.offload.cut import ProgramCut
from lacewing.options import Progress
from lacewing.program.operands import View
from lacewing.program.ops import Combine, Dispatch
from lacewing.program.program import Program
from lacewing.weights.experts.device import DeviceLayer, DeviceTier


class ExpertCacheBackend(Backend):
    """The backend of the parts of a program that are only `Dispatch`."""

    name, copies_weights = "expert cache", False

    def facts(self) -> DeviceFacts:
        return DeviceFacts(self.name, "", 1, (), None)

    def compile(
        self, program: Program, weights: Mapping[str, WeightView], limits: StepLimits, progress: Progress | None = None
    ) -> ExpertCacheManager:
        return ExpertCacheManager(program, limits)


class ExpertCacheManager(Step):
    """A stage a layer. It has neither weights nor states."""

    def __init__(self, program: Program, limits: StepLimits):
        super().__init__(program, limits)
        self._ops: list[Dispatch] = []
        for stage in stages(program):
            if len(stage.ops) != 1 or not isinstance(stage.ops[0], Dispatch):
                kinds = ", ".join(op.kind for op in stage.ops)
                raise BackendError(f"the expert cache only dispatches experts, it cannot do {kinds}")
            self._ops.append(stage.ops[0])
        self._sent = [stage.sent for stage in stages(program)]
        self.tier = DeviceTier([DeviceLayer(op.experts, op.resident, op.ids.width) for op in self._ops])
        self.buffer_bytes = sum(layer.places.nbytes + layer.usage.nbytes for layer in self.tier.layers)
        self._chosen = self._hits = 0  # since `forget_statistics`

    def _run(self, batch: Batch) -> np.ndarray:
        raise not_alone()

    def _hidden(self, view: View, which: np.ndarray) -> np.ndarray:
        raise not_alone()

    def _begin(self, batch: Batch) -> None:
        self.tier.begin_run()

    def _stage(self, index: int, received: Sequence[np.ndarray]) -> list[np.ndarray]:
        op, layer, (ids,) = (
            self._ops[index],
            self.tier.layers[index],
            (np.ascontiguousarray(each).view(np.int32) for each in received),
        )
        here = layer.places[ids]
        there = np.where(here < 0, ids, np.int32(-1))
        layer.count(ids, here)
        self._chosen, self._hits = self._chosen + ids.size, self._hits + int((here >= 0).sum())
        made = {op.here: here, op.there: there}
        return [made[view].view(np.float32) for view in self._sent[index]]

    @property
    def statistics(self) -> CacheStatistics:
        largest = max(self._ops, key=lambda op: op.experts)
        hit_rate = self._hits / self._chosen if self._chosen else None
        return CacheStatistics(len(self._ops), largest.resident, largest.experts, hit_rate)

    def forget_statistics(self) -> None:
        self._chosen = self._hits = 0

    # it has no states

    def _grow(self, group: int, count: int) -> None:
        raise _no_states()

    def _put_table(self, group: int, row: int, first: int, ids: np.ndarray) -> None:
        raise _no_states()

    def _copy(self, group: int, pairs: Sequence[tuple[int, int]], positions: int) -> None:
        raise _no_states()

    def _read(self, group: int, ids: Sequence[int]) -> np.ndarray:
        raise _no_states()

    def _write(self, group: int, ids: Sequence[int], data: np.ndarray) -> None:
        raise _no_states()

    def _close(self) -> None:
        """It holds nothing but its tables; slots of streamed experts are forgotten."""
        self.tier.bind([None] * len(self.tier.layers))


def _no_states() -> BackendError:
    return BackendError("the expert cache has no states")


class SkippableStage(NamedTuple):
    """A stage that only adds up experts that are resident nowhere else. `ids`: which of the views that it receives has theirs."""

    ids: int
    width: int  # of the sum, which is all that it sends

    def skipped(self, received: Sequence[np.ndarray]) -> list[np.ndarray] | None:
        """What it sends if no token has chosen one of them; None: it has to compute."""
        ids = received[self.ids]
        return None if (ids.view(np.int32) >= 0).any() else [np.zeros((len(ids), self.width), np.float32)]


def skippable_stages(cut: ProgramCut) -> dict[int, SkippableStage]:
    """By their number in the schedule. They may be skipped when nothing was chosen: no later one needs what they receive, and their
    device keeps nothing from run to run."""
    others = {op.there for part in cut.parts for op in part.program.ops if isinstance(op, Dispatch)}
    programs, found = [stages(part.program) for part in cut.parts], {}
    for number, each in enumerate(cut.schedule):
        stage, keeps = programs[each.device][each.stage], cut.parts[each.device].states
        last = stage.ops[-1]
        if isinstance(last, Combine) and last.ids in others and last.add is None and stage.sent == (last.out,) and not keeps:
            found[number] = SkippableStage(stage.received.index(last.ids), last.out.width)
    return found
