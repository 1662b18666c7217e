"""Bringing experts to the device that holds some of each layer: the first ones, and others while the model is used.

Between two requests, and after a long prompt, what is used more takes the place of what is used less. If the CPU's experts are
streamed, that also happens between the runs of an answer: they come from slots in RAM, so that nobody waits for the disk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lacewing.backends.stages import stages
from lacewing.backends.step import Step, SwapIn
from lacewing.backends.weights import CacheStatistics, ExpertRows, ResidentExperts, WeightView
from lacewing.errors import OutOfMemoryError
from lacewing.offload.cache import ExpertCacheManager
from lacewing.offload.cut import ProgramCut
from lacewing.offload.experts import source_name
from lacewing.program.ops import ExpertLinear, Op
from lacewing.program.program import Program
from lacewing.weights.experts.device import Wanted, first_resident
from lacewing.weights.experts.layer import LayerExperts

REQUEST_SWAP_BYTES = 2**30  # at most, between two requests
EVERY = 8  # runs of an answer between two swaps; less often finds fewer, more often hardly more
RUN_SWAP_BYTES = 2**27  # at most, between two runs

LayerStacks = Mapping[str, WeightView]  # of the experts of a layer, by the names of the resident ones


def with_resident(program: Program, weights: Mapping[str, WeightView]) -> dict[str, WeightView]:
    """The weights of a part of a program; of resident experts the first residents. Missing ones are left out."""
    found = {name: weights[name] for name in program.weights if name in weights}
    for stage in stages(program):
        stacks = _resident_in(stage.ops, weights)
        for name, weight in stacks.items():
            found[name] = ResidentExperts(name, weight, first_resident(_slots_of(stacks), program.weights[name][0]))
    return found


@dataclass
class Rebalancer:
    """The cache manager of an offloaded step with the device of its resident experts, and the stacks of each layer. `fixed`: these
    experts stay resident."""

    manager: ExpertCacheManager
    device: Step
    stacks: Sequence[LayerStacks]
    problem: str = ""
    fixed: bool = False

    def __post_init__(self) -> None:
        self.bind()
        for layer in self.manager.tier.layers:
            layer.begin_with(first_resident(layer.below, layer.slots))

    @property
    def statistics(self) -> CacheStatistics:
        return replace(self.manager.statistics, problem=self.problem)

    def bind(self) -> None:
        """After a change of residency."""
        self.manager.tier.bind([_slots_of(stacks) for stacks in self.stacks])

    def run(self) -> None:
        """Between two requests. Without memory for it nothing is changed."""
        self._try_swap(REQUEST_SWAP_BYTES)
        self.manager.forget_statistics()

    def between_runs(self) -> None:
        """Before each run; does something before some of them, and if experts are streamed."""
        streamed = self.manager.tier.streamed
        if streamed is not None and (clock := int(streamed.clock[0])) and clock % EVERY == 0:
            self._try_swap(RUN_SWAP_BYTES)

    def _try_swap(self, most: int) -> None:
        if self.fixed:
            return
        try:
            self.problem = ""
            self.swap(most)
        except OutOfMemoryError as error:
            self.problem = str(error)

    def swap(self, most: int) -> int:
        """Have the device hold what is used more, with transfers of so many bytes; how many experts were brought there."""
        tier = self.manager.tier
        nbytes = [sum(map(_expert_bytes, stacks.values())) for stacks in self.stacks]
        chosen = tier.wanted(nbytes, most)
        if not chosen:
            return 0

        def begin() -> None:
            for each in chosen:
                tier.layers[each.layer].leave(each.place)

        self.device.put_experts([SwapIn(each.place, self._weights(each)) for each in chosen], begin)
        for each in chosen:
            tier.layers[each.layer].arrive(each.expert, each.place, nbytes[each.layer])
        return len(chosen)

    def _weights(self, wanted: Wanted) -> dict[str, WeightView]:
        """Of an expert: of streamed stacks what is in RAM."""
        below, stacks = self.manager.tier.layers[wanted.layer].below, self.stacks[wanted.layer]
        rows: Mapping[str, np.ndarray] = {} if below is None else below.rows(wanted.expert)
        found: dict[str, WeightView] = {}
        for name, weight in stacks.items():
            if weight.name in rows:
                found[name] = ExpertRows(name, (1, *weight.shape[1:]), weight.quant, rows[weight.name])
            else:
                found[name] = ResidentExperts(name, weight, [wanted.expert])
        return found


def rebalancer_of(cut: ProgramCut, steps: Sequence[Step], weights: Mapping[str, WeightView]) -> Rebalancer | None:
    """None if no device holds some experts of a layer."""
    manager = next((step for step in steps if isinstance(step, ExpertCacheManager)), None)
    for part, step in zip(cut.parts, steps, strict=True):
        stacks = [found for stage in stages(part.program) if (found := _resident_in(stage.ops, weights))]
        if stacks and manager is not None:
            return Rebalancer(manager, step, stacks)
    return None


def _resident_in(ops: Sequence[Op], weights: Mapping[str, WeightView]) -> dict[str, WeightView]:
    """The weights of resident experts of a stage, which are a layer's, by the names of the resident ones."""
    names = (name for op in ops if isinstance(op, ExpertLinear) for name in op.weight_names)
    return {name: weights[source_name(name)] for name in names if name != source_name(name) and source_name(name) in weights}


def _slots_of(stacks: LayerStacks) -> LayerExperts | None:
    """Where the experts of a layer are in RAM, if they are streamed."""
    found = (weight.slots for weight in stacks.values())
    return next((slots for slots in found if isinstance(slots, LayerExperts)), None)


def _expert_bytes(weight: WeightView) -> int:
    return weight.quant.row_bytes(weight.shape[-1]) * math.prod(weight.shape[1:-1])
