"""The offload plan: how a model that does not fit a GPU is shared out between it and the CPU. A pure function, with its reasons.

A dense model: the first layers stay on the CPU, so that a token changes device once. A mixture of experts: everything but
experts goes to the GPU, as long as that fits; what a router leaves aside most of the time costs no room. Where the GPU can swap
single experts, the first layers share theirs, half of them on the GPU: the better half has far more than half of the choices, and
each layer that is shared costs a wait; only when all do, fewer than half. Else the first layers leave all theirs. If the CPU's
experts are streamed, the wait is that for the disk, and every layer has as many experts on the GPU as fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from lacewing.errors import OutOfMemoryError
from lacewing.offload.cut import part_of
from lacewing.offload.experts import DISPATCH, OTHERS, RESIDENT, TRUNK, share_experts, source_name
from lacewing.offload.layers import OpLayer, experts_together, op_layers
from lacewing.options import CPU, format_bytes
from lacewing.program.ops import Embed, Logits, Route
from lacewing.program.program import Program
from lacewing.program.stream_ops import Lookup

GPU, HOST, CACHE = 0, 1, 2  # which dispatches experts, see `offload.cache`
_SIDES = {TRUNK: GPU, RESIDENT: GPU, OTHERS: HOST, DISPATCH: CACHE}


@dataclass(frozen=True)
class MemoryBudget:
    """Bytes of a GPU that may be filled, and what sets them, in words."""

    nbytes: int
    source: str


class OffloadLevel(NamedTuple):
    """How much the CPU does: the first `host_layers` layers, the experts of the first `host_experts` mixtures, and of
    the first `shared` mixtures all experts but `resident`."""

    host_layers: int = 0
    host_experts: int = 0
    shared: int = 0
    resident: int = 0


@dataclass(frozen=True)
class DeviceLoad:
    """What a device must hold."""

    weight_bytes: int
    kv_bytes: int
    buffer_bytes: int

    @property
    def nbytes(self) -> int:
        return self.weight_bytes + self.kv_bytes + self.buffer_bytes


@dataclass(frozen=True)
class Target:
    """What a plan asks of the GPU: what a part of the program takes there, and the mixture layers whose experts it can swap."""

    load: Callable[[Program], DeviceLoad]
    swappable: frozenset[int] = frozenset()


@dataclass(frozen=True)
class OffloadPlan:
    """`devices`: of each op of `program`, which is the whole one with its ops in an order that is better to cut.

    Of `layers` layers `mixtures` have experts, `experts` each.
    """

    program: Program
    devices: tuple[int, ...]
    layers: int
    mixtures: int
    experts: int
    level: OffloadLevel
    gpu: DeviceLoad
    reasons: tuple[str, ...]

    @property
    def resident(self) -> dict[str, int]:
        """How many experts the GPU has at a time of stacks that it shares with the CPU, by their names in the whole program."""
        return {source_name(name): shape[0] for name, shape in self.program.weights.items() if name != source_name(name)}

    @property
    def on_gpu(self) -> str:
        """For people."""
        away, experts = self.level.host_layers, self.level.host_experts
        if away == self.layers:
            return "only the output"
        if away:
            trunk = f" without the experts of {self._experts}" if experts > away else ""
            return f"{_numbers(away, self.layers)} of {self.layers} and the output{trunk}"
        if self.level.shared:
            some = f"{self.level.shared} of {self.mixtures} layers" if self.level.shared < self.mixtures else "all layers"
            return f"everything but {self.experts - self.level.resident} of {self.experts} experts of {some}"
        return f"everything but the experts of {self._experts}"

    @property
    def _experts(self) -> str:
        return f"{self.level.host_experts} of {self.mixtures} layers" if self.level.host_experts < self.mixtures else "all layers"


def plan_offload(
    program: Program, target: Target, budget: MemoryBudget | None, layers: int | None = None, *, spread: bool = False
) -> OffloadPlan | None:
    """Put as much on the GPU as fits `budget` (None: not known), or `layers` layers, the last ones; None: all of it.
    `spread`: of experts as many as fit of every layer, rather than all of some layers.

    Raises OutOfMemoryError where so many layers do not fit, or not even one.
    """
    planner = OffloadPlanner(program, target)
    levels = planner.levels(spread)
    if layers is not None:
        chosen = planner.level_of(layers)
        if budget is not None and planner.load(chosen).nbytes > budget.nbytes:
            raise OutOfMemoryError(
                f"{layers} layers on the GPU take {format_bytes(planner.load(chosen).nbytes)}, but {budget.source} gives "
                f"{format_bytes(budget.nbytes)}; use fewer `gpu_layers`, or a smaller `context`"
            )
    elif budget is None or planner.load(OffloadLevel()).nbytes <= budget.nbytes:
        return None
    else:
        low, high = 1, len(levels)  # the first that fits; each needs less than the one before
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if planner.load(levels[middle]).nbytes <= budget.nbytes else (middle + 1, high)
        if low == len(levels):
            least = format_bytes(planner.load(levels[-1]).nbytes)
            raise OutOfMemoryError(
                f"not even one layer of the model fits the GPU: that takes {least}, but {budget.source} gives "
                f"{format_bytes(budget.nbytes)}; use a smaller `context`, or `backend='{CPU}'`"
            )
        chosen = levels[low]
    return None if chosen == OffloadLevel() else planner.plan(chosen, budget, asked=layers is not None)


class OffloadPlanner:
    """A program with its ops in their places, to look at several ways to share it out."""

    def __init__(self, program: Program, target: Target):
        self.program, self.target = experts_together(program), target
        self.places = op_layers(self.program)
        self.layers = 1 + max((place.layer for place in self.places if place.layer is not None), default=-1)
        self.mixtures = sorted({place.layer for place in self.places if place.experts and place.layer is not None})
        self.experts = {
            place.layer: op.logits.width
            for op, place in zip(self.program.ops, self.places, strict=True)
            if isinstance(op, Route) and place.layer is not None
        }
        embedding, output = ({op.weight for op in program.ops if isinstance(op, kind)} for kind in (Embed, Logits))
        self.tied = embedding == output

    @property
    def trunk_bytes(self) -> int:
        """What should be on the GPU at least: of a mixture of experts all but these, of a dense model everything."""
        return self.load(OffloadLevel(0, len(self.mixtures))).nbytes

    def levels(self, spread: bool = False) -> list[OffloadLevel]:
        """From nothing on the CPU on. `spread`: see `plan_offload`."""
        count, found = len(self.mixtures), [OffloadLevel()]
        fewest = min(self.experts.values(), default=0)
        half = fewest // 2
        if half and spread and _swappable(self.mixtures, self.target.swappable):
            found += [OffloadLevel(shared=count, resident=resident) for resident in range(fewest - 1, 0, -1)]
            found.append(OffloadLevel(0, count))
        elif spread and count:
            found.append(OffloadLevel(0, count))
        elif half and _swappable(self.mixtures, self.target.swappable):
            found += [OffloadLevel(shared=shared, resident=half) for shared in range(1, count + 1)]
            found += [OffloadLevel(shared=count, resident=resident) for resident in range(half - 1, 0, -1)]
            found.append(OffloadLevel(0, count))
        else:
            found += [OffloadLevel(0, experts) for experts in range(1, count + 1)]
        return [*found, *(OffloadLevel(layers, count) for layers in range(1, self.layers))]

    def level_of(self, layers: int) -> OffloadLevel:
        """With so many whole layers on the GPU; the trunk of the others stays there where they are mixtures."""
        away = max(0, self.layers - layers)
        return OffloadLevel(0, min(away, len(self.mixtures))) if self.mixtures else OffloadLevel(away)

    def assign(self, level: OffloadLevel) -> tuple[Program, tuple[int, ...]]:
        """The program in the form in which it is shared out, and the device of each op."""
        mixtures, shared = set(self.mixtures[: level.host_experts]), self.mixtures[: level.shared]
        embedding = HOST if level.host_layers or ((mixtures or shared) and not self.tied) else GPU

        def device(place: OpLayer) -> int:
            if place.layer is None:
                return GPU if place.head else embedding
            away = place.layer < level.host_layers or (place.experts and place.layer in mixtures)
            return HOST if away else GPU

        if not shared:
            return self.program, _settled(self.program, list(map(device, self.places)))
        layers = [place.layer if place.experts else None for place in self.places]
        made = share_experts(self.program, layers, {layer: min(level.resident, self.experts[layer] - 1) for layer in shared})
        others = iter([place for place, layer in zip(self.places, layers, strict=True) if layer not in shared])
        return made.program, _settled(made.program, [_SIDES[side] if side else device(next(others)) for side in made.sides])

    def load(self, level: OffloadLevel) -> DeviceLoad:
        """Of the GPU."""
        program, devices = self.assign(level)
        mine = [op for op, device in zip(program.ops, devices, strict=True) if device == GPU]
        return self.target.load(part_of(program, mine).program)

    def plan(self, level: OffloadLevel, budget: MemoryBudget | None, asked: bool) -> OffloadPlan:
        found, experts = self.load(level), max(self.experts.values(), default=0)
        made = OffloadPlan(*self.assign(level), self.layers, len(self.mixtures), experts, level, found, ())
        why = "asked for"
        if budget is not None and not asked:
            whole = format_bytes(self.load(OffloadLevel()).nbytes)
            why = f"all would take {whole}, but {budget.source} gives {format_bytes(budget.nbytes)}"
        parts = f"weights {format_bytes(found.weight_bytes)}, KV cache {format_bytes(found.kv_bytes)}"
        reasons = (
            f"on the GPU is {made.on_gpu}, the CPU computes the rest: {why}",
            f"the GPU takes {format_bytes(found.nbytes)}: {parts}, buffers {format_bytes(found.buffer_bytes)}",
            *(("which experts are on the GPU changes, as routers choose them",) if level.shared else ()),
        )
        return replace(made, reasons=reasons)


def _settled(program: Program, devices: list[int]) -> tuple[int, ...]:
    """With each state on one device: whoever reads the KV cache of an earlier layer does so where that is. Tables are read by
    the CPU where it takes part at all."""
    owners: dict[int, int] = {}
    for index, op in enumerate(program.ops):
        if isinstance(op, Lookup) and HOST in devices:
            devices[index] = HOST
        for state in op.state_ids:
            devices[index] = owners.setdefault(state, devices[index])
    return tuple(devices)


def _swappable(mixtures: Sequence[int], layers: frozenset[int]) -> bool:
    """Whether all mixtures may share their experts."""
    return bool(mixtures) and layers.issuperset(mixtures)


def _numbers(first: int, end: int) -> str:
    return f"layer {first}" if end - first == 1 else f"layers {first} to {end - 1}"
