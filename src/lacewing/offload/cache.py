"""The expert cache: of some layers a GPU holds some experts. Who computes which, and which ones are resident.

The manager is a device of a cut program that does nothing but `Allot`, on the host, where the ids come by anyway. It counts what
routers choose, and by that experts are swapped in before a request and after a long prompt: one that is used more takes the place
of a resident one that is little used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lacewing.backends.base import DeviceFacts
from lacewing.backends.batch import StepLimits
from lacewing.backends.stages import not_alone, stages
from lacewing.backends.step import RoutedLayer, Step, SwapIn
from lacewing.backends.weights import ResidentExperts, WeightView
from lacewing.errors import BackendError, OutOfMemoryError
from lacewing.offload.cut import ProgramCut
from lacewing.offload.experts import source_name
from lacewing.options import Progress
from lacewing.program.ops import Allot, Combine, ExpertLinear, Op
from lacewing.program.program import Program

HALF_LIFE = 512  # tokens, after which what was chosen counts half
CLEARLY = 1.25  # times as often must an expert have been chosen as the one that makes room for it
SWAPPED_BYTES = 2**30  # at most, at a time


@dataclass(frozen=True)
class CacheStatistics:
    """Of the layers that share their experts: how many of how many are resident in each, and which share of what was chosen since
    the last rebalancing was among them, None: nothing was chosen."""

    layers: int
    resident: int
    experts: int
    hit_rate: float | None
    problem: str = ""  # why the last rebalancing failed

    def __str__(self) -> str:
        each = "the layer" if self.layers == 1 else f"each of {self.layers} layers"
        told = "" if self.hit_rate is None else f", hit rate {self.hit_rate:.0%}"
        problem = f"; the last swap-in failed, and nothing was changed: {self.problem}" if self.problem else ""
        return f"on the GPU: {self.resident} of {self.experts} experts of {each}{told}{problem}"


class ExpertCacheBackend:
    """The backend of the parts of a program that are only `Allot`."""

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

    def __init__(self, op: Allot):
        self.op = op
        self.places = np.full(op.experts, -1, np.int32)
        self.places[: op.held] = np.arange(op.held)
        self.counts = np.zeros(op.experts)

    def wanted(self, index: int) -> list[_Wanted]:
        """The best first. `index`: of the layer."""
        inside = np.full(self.op.held, -1)  # who is at each place; -1: nobody, since a swap-in failed
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


class ExpertCacheManager:
    """See `backends.base.Step` and `backends.staged.Staged`: a stage a layer."""

    kv_bytes = 0

    def __init__(self, program: Program, limits: StepLimits):
        self.limits = limits
        self._layers: list[_Layer] = []
        for _, done, _ in stages(program):
            if len(done) != 1 or not isinstance(done[0], Allot):
                raise BackendError(f"the expert cache only dispatches experts, it cannot do {', '.join(op.kind for op in done)}")
            self._layers.append(_Layer(done[0]))
        self._sent = [sent for _, _, sent in stages(program)]
        self.buffer_bytes = sum(layer.places.nbytes + layer.counts.nbytes for layer in self._layers)
        self._tokens = self._chosen = self._hits = 0  # since the last rebalancing

    def run(self, tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        raise not_alone()

    def begin(self, tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, outputs: np.ndarray) -> None:
        self._tokens += len(tokens)

    def stage(self, index: int, received: Sequence[np.ndarray]) -> list[np.ndarray]:
        layer, (ids,) = self._layers[index], (np.ascontiguousarray(each).view(np.int32) for each in received)
        here = layer.places[ids]
        there = np.where(here < 0, ids, np.int32(-1))
        layer.counts += np.bincount(ids.reshape(-1), minlength=len(layer.counts))
        self._chosen, self._hits = self._chosen + ids.size, self._hits + int((here >= 0).sum())
        made = {layer.op.here: here, layer.op.there: there}
        return [made[view].view(np.float32) for view in self._sent[index]]

    def logits(self) -> np.ndarray:
        raise not_alone()

    @property
    def statistics(self) -> CacheStatistics:
        largest = max(self._layers, key=lambda layer: layer.op.experts).op
        hit_rate = self._hits / self._chosen if self._chosen else None
        return CacheStatistics(len(self._layers), largest.held, largest.experts, hit_rate)

    def rebalance(self, stacks: Sequence[Mapping[str, WeightView]], device: TakesExperts) -> int:
        """Have the device hold what was chosen more often; how many experts were swapped in. `stacks`: of each layer the weights of
        its experts, by the names of the resident ones. A place is nobody's until its new expert is there."""
        chosen = self._choose(stacks)
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

    def _choose(self, stacks: Sequence[Mapping[str, WeightView]]) -> list[_Wanted]:
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

    def rebind(self) -> None:
        """It has no weights."""

    def watch_routes(self, on: bool) -> None:
        """Routers are elsewhere."""

    def routes(self) -> list[RoutedLayer]:
        return []

    def close(self) -> None:
        """It holds nothing but its tables."""


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
    """The cache manager of an offloaded step with the device of its resident experts, None: it cannot exchange them. `stacks`: see
    `ExpertCacheManager.rebalance`."""

    manager: ExpertCacheManager
    device: TakesExperts | None
    stacks: Sequence[Mapping[str, WeightView]]
    problem: str = ""

    @property
    def statistics(self) -> CacheStatistics:
        return replace(self.manager.statistics, problem=self.problem)

    def run(self) -> None:
        """Without memory for it nothing is changed."""
        if self.device is None:
            return
        try:
            self.problem = ""
            self.manager.rebalance(self.stacks, self.device)
        except OutOfMemoryError as error:
            self.problem = str(error)


def cache_statistics(step: object) -> CacheStatistics | None:
    """How a step shares experts with the CPU; None: it does not."""
    return getattr(step, "resident", None)


def rebalancer_of(cut: ProgramCut, steps: Sequence[Step], weights: Mapping[str, WeightView]) -> Rebalancer | None:
    """None if no device holds some experts of a layer."""
    manager = next((step for step in steps if isinstance(step, ExpertCacheManager)), None)
    for part, step in zip(cut.parts, steps, strict=True):
        stacks = [found for _, ops, _ in stages(part.program) if (found := _resident_in(ops, weights))]
        if stacks and manager is not None:
            return Rebalancer(manager, step if isinstance(step, TakesExperts) else None, stacks)
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
    others = {op.there for part in cut.parts for op in part.program.ops if isinstance(op, Allot)}
    programs, found = [stages(part.program) for part in cut.parts], {}
    for number, each in enumerate(cut.schedule):
        received, done, sent = programs[each.device][each.stage]
        last, keeps = done[-1], cut.parts[each.device].layers
        if isinstance(last, Combine) and last.ids in others and last.add is None and sent == (last.out,) and not keeps:
            found[number] = SkippableStage(received.index(last.ids), last.out.width)
    return found


def _resident_in(ops: Sequence[Op], weights: Mapping[str, WeightView]) -> dict[str, WeightView]:
    """The weights of resident experts of a stage, which are a layer's, by the names of the resident ones."""
    names = (name for op in ops if isinstance(op, ExpertLinear) for name in op.weight_names)
    return {name: weights[source_name(name)] for name in names if name != source_name(name)}
