"""Experts of a layer that a GPU holds some of: who computes which (the desk), and which ones it holds.

The desk is a device of a split program that does nothing but `Allot`, on the host, where the ids come by anyway. It counts what
routers choose, and by that experts are exchanged before a request and after a long prompt: a held one that is little used for one
that is used more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lacewing.backends.base import DeviceFacts
from lacewing.backends.batch import StepLimits
from lacewing.backends.step import RoutedLayer, Step
from lacewing.backends.weights import WeightView
from lacewing.backends.stages import not_alone, stages
from lacewing.backends.step import SwapIn
from lacewing.backends.weights import HeldExperts
from lacewing.errors import BackendError, OutOfMemoryError
from lacewing.offload.cut import Split
from lacewing.offload.experts import source_name
from lacewing.options import Progress
from lacewing.program.ops import Allot, Combine, ExpertLinear, Op
from lacewing.program.program import Program

HALF_LIFE = 512  # tokens, after which what was chosen counts half
CLEARLY = 1.25  # times as often must an expert have been chosen as the one that makes room for it
EXCHANGED_BYTES = 2**30  # at most, at a time


@dataclass(frozen=True)
class Use:
    """Of the layers that share their experts: how many of how many are held in each, and which share of what was chosen since they
    were last exchanged was among them, None: nothing was."""

    layers: int
    held: int
    experts: int
    share: float | None
    problem: str = ""  # why the last exchange did not come about

    def __str__(self) -> str:
        each = "the layer" if self.layers == 1 else f"each of {self.layers} layers"
        told = "" if self.share is None else f", with {self.share:.0%} of what was chosen there lately"
        problem = f"; they stay as they are: {self.problem}" if self.problem else ""
        return f"on the GPU: {self.held} of {self.experts} experts of {each}{told}{problem}"


class Desk:
    """The backend of the parts of a program that are only `Allot`."""

    name, copies_weights = "desk", False

    def facts(self) -> DeviceFacts:
        return DeviceFacts(self.name, "", 1, (), None)

    def compile(
        self, program: Program, weights: Mapping[str, WeightView], limits: StepLimits, progress: Progress | None = None
    ) -> DeskStep:
        return DeskStep(program, limits)


class _Wish(NamedTuple):
    """An expert that should be held, and the place for it. Wishes in order: the largest gain first."""

    loss: float
    layer: int
    expert: int
    place: int


class _Layer:
    """Where each expert of a layer is held, and how often it was chosen."""

    def __init__(self, op: Allot):
        self.op = op
        self.places = np.full(op.experts, -1, np.int32)
        self.places[: op.held] = np.arange(op.held)
        self.counts = np.zeros(op.experts)

    def wishes(self, index: int) -> list[_Wish]:
        """The best first. `index`: of the layer."""
        inside = np.full(self.op.held, -1)  # who is at each place; -1: nobody, since an exchange failed
        held = np.flatnonzero(self.places >= 0)
        inside[self.places[held]] = held
        worth = np.where(inside >= 0, self.counts[inside], -1.0)
        least = np.argsort(worth, kind="stable")
        best = [expert for expert in np.argsort(-self.counts, kind="stable") if self.places[expert] < 0]
        found = []
        for place, expert in zip(least, best, strict=False):
            if self.counts[expert] <= max(0.0, CLEARLY * worth[place] + (worth[place] > 0)):
                break
            found.append(_Wish(float(worth[place] - self.counts[expert]), index, int(expert), int(place)))
        return found


class DeskStep:
    """See `backends.base.Step` and `backends.staged.Staged`: a stage a layer."""

    kv_bytes = 0

    def __init__(self, program: Program, limits: StepLimits):
        self.limits = limits
        self._layers: list[_Layer] = []
        for _, done, _ in stages(program):
            if len(done) != 1 or not isinstance(done[0], Allot):
                raise BackendError(f"the desk only allots experts, it cannot do {', '.join(op.kind for op in done)}")
            self._layers.append(_Layer(done[0]))
        self._sent = [sent for _, _, sent in stages(program)]
        self.buffer_bytes = sum(layer.places.nbytes + layer.counts.nbytes for layer in self._layers)
        self._tokens = self._chosen = self._served = 0  # since the last exchange

    def run(self, tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        raise not_alone()

    def begin(self, tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, outputs: np.ndarray) -> None:
        self._tokens += len(tokens)

    def stage(self, index: int, received: Sequence[np.ndarray]) -> list[np.ndarray]:
        layer, (ids,) = self._layers[index], (np.ascontiguousarray(each).view(np.int32) for each in received)
        here = layer.places[ids]
        there = np.where(here < 0, ids, np.int32(-1))
        layer.counts += np.bincount(ids.reshape(-1), minlength=len(layer.counts))
        self._chosen, self._served = self._chosen + ids.size, self._served + int((here >= 0).sum())
        made = {layer.op.here: here, layer.op.there: there}
        return [made[view].view(np.float32) for view in self._sent[index]]

    def logits(self) -> np.ndarray:
        raise not_alone()

    @property
    def use(self) -> Use:
        largest = max(self._layers, key=lambda layer: layer.op.experts).op
        share = self._served / self._chosen if self._chosen else None
        return Use(len(self._layers), largest.held, largest.experts, share)

    def exchange(self, stacks: Sequence[Mapping[str, WeightView]], device: TakesExperts) -> int:
        """Have the device hold what was chosen more often; how many experts were exchanged. `stacks`: of each layer the weights of
        its experts, by the names of the held ones. A place is nobody's until its new expert is there."""
        wishes = sorted(wish for index, layer in enumerate(self._layers) for wish in layer.wishes(index))
        fade = 0.5 ** (self._tokens / HALF_LIFE)
        self._tokens = self._chosen = self._served = 0
        for layer in self._layers:
            layer.counts *= fade
        room = EXCHANGED_BYTES
        for number, wish in enumerate(wishes):
            room -= sum(map(_expert_bytes, stacks[wish.layer].values()))
            if room < 0:
                del wishes[number:]
                break
        if not wishes:
            return 0

        def begin() -> None:
            for wish in wishes:
                places = self._layers[wish.layer].places
                places[places == wish.place] = -1

        moves = [
            SwapIn(wish.place, {name: HeldExperts(name, weight, [wish.expert]) for name, weight in stacks[wish.layer].items()})
            for wish in wishes
        ]
        device.put_experts(moves, begin)
        for wish in wishes:
            self._layers[wish.layer].places[wish.expert] = wish.place
        return len(wishes)

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


def with_held(program: Program, weights: Mapping[str, WeightView]) -> dict[str, WeightView]:
    """The weights of a part of a program; of held experts the first ones. Those that are missing are left out."""
    found: dict[str, WeightView] = {}
    for name, shape in program.weights.items():
        source = source_name(name)
        if source in weights:
            found[name] = weights[source] if source == name else HeldExperts(name, weights[source], range(shape[0]))
    return found


@dataclass
class Exchange:
    """The desk of a split step with the device whose experts it exchanges, None: it cannot. `stacks`: see `DeskStep.exchange`."""

    desk: DeskStep
    device: TakesExperts | None
    stacks: Sequence[Mapping[str, WeightView]]
    problem: str = ""

    @property
    def use(self) -> Use:
        return replace(self.desk.use, problem=self.problem)

    def run(self) -> None:
        """Without memory for it, all stays as it is."""
        if self.device is None:
            return
        try:
            self.problem = ""
            self.desk.exchange(self.stacks, self.device)
        except OutOfMemoryError as error:
            self.problem = str(error)


def use_of(step: object) -> Use | None:
    """How a step, or the one that it watches, shares experts with the processor; None: it does not."""
    return getattr(getattr(step, "step", step), "held", None)


def exchange_of(split: Split, steps: Sequence[Step], weights: Mapping[str, WeightView]) -> Exchange | None:
    """None where no device holds some experts of a layer."""
    desk = next((step for step in steps if isinstance(step, DeskStep)), None)
    for part, step in zip(split.parts, steps, strict=True):
        stacks = [found for _, ops, _ in stages(part.program) if (found := _held_by(ops, weights))]
        if stacks and desk is not None:
            return Exchange(desk, step if isinstance(step, TakesExperts) else None, stacks)
    return None


class Rest(NamedTuple):
    """A turn that only adds up experts that are held nowhere else. `ids`: which of the views that it receives has theirs."""

    ids: int
    width: int  # of the sum, which is all that it sends

    def of_none(self, received: Sequence[np.ndarray]) -> list[np.ndarray] | None:
        """What it sends where no token has chosen one of them; None: it has to compute."""
        ids = received[self.ids]
        return None if (ids.view(np.int32) >= 0).any() else [np.zeros((len(ids), self.width), np.float32)]


def rests(split: Split) -> dict[int, Rest]:
    """By the number of their turn, which may be left out when nothing was chosen: no later one needs what it receives, and its
    device keeps nothing from run to run."""
    others = {op.there for part in split.parts for op in part.program.ops if isinstance(op, Allot)}
    programs, found = [stages(part.program) for part in split.parts], {}
    for number, turn in enumerate(split.turns):
        received, done, sent = programs[turn.device][turn.stage]
        last, keeps = done[-1], split.parts[turn.device].layers
        if isinstance(last, Combine) and last.ids in others and last.add is None and sent == (last.out,) and not keeps:
            found[number] = Rest(received.index(last.ids), last.out.width)
    return found


def _held_by(ops: Sequence[Op], weights: Mapping[str, WeightView]) -> dict[str, WeightView]:
    """The weights of held experts of a stage, which are a layer's, by the names of the held ones."""
    names = (name for op in ops if isinstance(op, ExpertLinear) for name in op.weight_names)
    return {name: weights[source_name(name)] for name in names if name != source_name(name)}
