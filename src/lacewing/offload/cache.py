"""The expert cache: of some layers a GPU holds some experts. Who computes which, and which ones are resident.

The manager is a device of a cut program that does nothing but `Dispatch`, on the host, where the ids come by anyway. It counts what
routers choose, and by that experts are swapped in before a request and after a long prompt: one that is used more takes the place
of a resident one that is little used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lacewing.backends.base import Backend, DeviceFacts
from lacewing.backends.batch import Batch, StepLimits
from lacewing.backends.stages import not_alone, stages
from lacewing.backends.step import Step, SwapIn
from lacewing.backends.weights import CacheStatistics, ResidentExperts, WeightView
from lacewing.errors import BackendError, OutOfMemoryError
from lacewing.offload.cut import ProgramCut
from lacewing.offload.experts import source_name
from lacewing.options import Progress
from lacewing.program.operands import View
from lacewing.program.ops import Combine, Dispatch, ExpertLinear, Op
from lacewing.program.program import Program

HALF_LIFE = 512  # tokens, after which what was chosen counts half
CLEARLY = 1.25  # times as often must an expert have been chosen as the one that makes room for it
SWAPPED_BYTES = 2**30  # at most, at a time


class ExpertCacheBackend(Backend):
    """The backend of the parts of a program that are only `Dispatch`."""

    name, copies_weights = "expert cache", False

    def facts(self) -> DeviceFacts:
        return DeviceFacts(self.name, "", 1, (), None)

    def compile(
        self, program: Program, weights: Mapping[str, WeightView], limits: StepLimits, progress: Progress | None = None
    ) -> ExpertCacheManager:
        return ExpertCacheManager(program, limits)


class _Wanted(NamedTuple):
    """An expert that should be resident, and the place for it. In order: the largest gain first."""

    loss: float
    layer: int
    expert: int
    place: int


class _Layer:
    """The place of each resident expert of a layer, and how often each was chosen."""

    def __init__(self, op: Dispatch):
        self.op = op
        self.places = np.full(op.experts, -1, np.int32)
        self.places[: op.resident] = np.arange(op.resident)
        self.counts = np.zeros(op.experts)

    def wanted(self, index: int) -> list[_Wanted]:
        """The best first. `index`: of the layer."""
        inside = np.full(self.op.resident, -1)  # who is at each place; -1: nobody, since a swap-in failed
        resident = np.flatnonzero(self.places >= 0)
        inside[self.places[resident]] = resident
        worth = np.where(inside >= 0, self.counts[inside], -1.0)
        least_used = np.argsort(worth, kind="stable")
        best = [expert for expert in np.argsort(-self.counts, kind="stable") if self.places[expert] < 0]
        found = []
        for place, expert in zip(least_used, best, strict=False):
            if self.counts[expert] <= max(0.0, CLEARLY * worth[place] + (worth[place] > 0)):
                break
            found.append(_Wanted(float(worth[place] - self.counts[expert]), index, int(expert), int(place)))
        return found


class ExpertCacheManager(Step):
    """A stage a layer. It has neither weights nor states."""

    def __init__(self, program: Program, limits: StepLimits):
        super().__init__(program, limits)
        self._layers: list[_Layer] = []
        for stage in stages(program):
            if len(stage.ops) != 1 or not isinstance(stage.ops[0], Dispatch):
                kinds = ", ".join(op.kind for op in stage.ops)
                raise BackendError(f"the expert cache only dispatches experts, it cannot do {kinds}")
            self._layers.append(_Layer(stage.ops[0]))
        self._sent = [stage.sent for stage in stages(program)]
        self.buffer_bytes = sum(layer.places.nbytes + layer.counts.nbytes for layer in self._layers)
        self._tokens = self._chosen = self._hits = 0  # since the last rebalancing

    def _run(self, batch: Batch) -> np.ndarray:
        raise not_alone()

    def _hidden(self, view: View, which: np.ndarray) -> np.ndarray:
        raise not_alone()

    def _begin(self, batch: Batch) -> None:
        self._tokens += len(batch.tokens)

    def _stage(self, index: int, received: Sequence[np.ndarray]) -> list[np.ndarray]:
        layer, (ids,) = self._layers[index], (np.ascontiguousarray(each).view(np.int32) for each in received)
        here = layer.places[ids]
        there = np.where(here < 0, ids, np.int32(-1))
        layer.counts += np.bincount(ids.reshape(-1), minlength=len(layer.counts))
        self._chosen, self._hits = self._chosen + ids.size, self._hits + int((here >= 0).sum())
        made = {layer.op.here: here, layer.op.there: there}
        return [made[view].view(np.float32) for view in self._sent[index]]

    @property
    def statistics(self) -> CacheStatistics:
        largest = max(self._layers, key=lambda layer: layer.op.experts).op
        hit_rate = self._hits / self._chosen if self._chosen else None
        return CacheStatistics(len(self._layers), largest.resident, largest.experts, hit_rate)

    def swap_in(self, stacks: Sequence[Mapping[str, WeightView]], device: Step) -> int:
        """Have the device hold what was chosen more often; how many experts were swapped in. `stacks`: of each layer the weights of
        its experts, by the names of the resident ones. A place is nobody's until its new expert is there."""
        chosen = self._worth_swapping(stacks)
        if not chosen:
            return 0

        def begin() -> None:
            for each in chosen:
                places = self._layers[each.layer].places
                places[places == each.place] = -1

        swaps = [
            SwapIn(each.place, {name: ResidentExperts(name, weight, [each.expert]) for name, weight in stacks[each.layer].items()})
            for each in chosen
        ]
        device.put_experts(swaps, begin)
        for each in chosen:
            self._layers[each.layer].places[each.expert] = each.place
        return len(chosen)

    def _worth_swapping(self, stacks: Sequence[Mapping[str, WeightView]]) -> list[_Wanted]:
        """What is worth swapping in, as much as one rebalancing may; counting begins anew."""
        wanted = sorted(each for index, layer in enumerate(self._layers) for each in layer.wanted(index))
        fade = 0.5 ** (self._tokens / HALF_LIFE)
        self._tokens = self._chosen = self._hits = 0
        for layer in self._layers:
            layer.counts *= fade
        left = SWAPPED_BYTES
        for number, each in enumerate(wanted):
            left -= sum(map(_expert_bytes, stacks[each.layer].values()))
            if left < 0:
                return wanted[:number]
        return wanted

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
        """It holds nothing but its tables."""


def _no_states() -> BackendError:
    return BackendError("the expert cache has no states")


def _expert_bytes(weight: WeightView) -> int:
    return weight.quant.row_bytes(weight.shape[-1]) * math.prod(weight.shape[1:-1])


def with_resident(program: Program, weights: Mapping[str, WeightView]) -> dict[str, WeightView]:
    """The weights of a part of a program; of resident experts the first ones. Those that are missing are left out."""
    found: dict[str, WeightView] = {}
    for name, shape in program.weights.items():
        source = source_name(name)
        if source in weights:
            found[name] = weights[source] if source == name else ResidentExperts(name, weights[source], range(shape[0]))
    return found


@dataclass
class Rebalancer:
    """The cache manager of an offloaded step with the device of its resident experts. `stacks`: see
    `ExpertCacheManager.swap_in`."""

    manager: ExpertCacheManager
    device: Step
    stacks: Sequence[Mapping[str, WeightView]]
    problem: str = ""

    @property
    def statistics(self) -> CacheStatistics:
        return replace(self.manager.statistics, problem=self.problem)

    def run(self) -> None:
        """Without memory for it nothing is changed."""
        try:
            self.problem = ""
            self.manager.swap_in(self.stacks, self.device)
        except OutOfMemoryError as error:
            self.problem = str(error)


def rebalancer_of(cut: ProgramCut, steps: Sequence[Step], weights: Mapping[str, WeightView]) -> Rebalancer | None:
    """None if no device holds some experts of a layer."""
    manager = next((step for step in steps if isinstance(step, ExpertCacheManager)), None)
    for part, step in zip(cut.parts, steps, strict=True):
        stacks = [found for stage in stages(part.program) if (found := _resident_in(stage.ops, weights))]
        if stacks and manager is not None:
            return Rebalancer(manager, step, stacks)
    return None


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


def _resident_in(ops: Sequence[Op], weights: Mapping[str, WeightView]) -> dict[str, WeightView]:
    """The weights of resident experts of a stage, which are a layer's, by the names of the resident ones."""
    names = (name for op in ops if isinstance(op, ExpertLinear) for name in op.weight_names)
    return {name: weights[source_name(name)] for name in names if name != source_name(name)}
