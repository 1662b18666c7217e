"""Slots for experts in the memory of a GPU: which experts of each layer have one, and when another one gets it.

They are the first tier, slots in RAM the second, files the third; the uses that `policy.Usage` counts decide in all of them. Who
computes with what is there is not decided here, and no bytes are moved: `offload` does both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lacewing.weights.experts.layer import LayerExperts
from lacewing.weights.experts.policy import Usage

# Times, and uses, that an expert must be ahead of the one that leaves for it: the two are not to take turns.
CLEARLY, MORE = 1.25, 1.0


class Wanted(NamedTuple):
    """An expert that should be on the device, and the slot for it. In order: the largest gain first."""

    loss: float
    layer: int
    expert: int
    place: int


class DeviceLayer:
    """The slots of one layer on a device: of `experts` experts, of which a token uses `active`, `slots` are resident.

    `places`, int32 (E,): the slot of each expert, -1: it has none. `resident`, bool (E,): whether it has one.
    """

    def __init__(self, experts: int, slots: int, active: int):
        self.experts, self.slots, self._active = experts, slots, active
        self.places = np.full(experts, -1, np.int32)
        self.resident = np.zeros(experts, bool)
        self.usage = Usage(experts, active)
        self._below: LayerExperts | None = None
        self.begin_with(range(min(slots, experts)))

    def begin_with(self, experts: Sequence[int]) -> None:
        """What is there at first: the experts in the order of their slots."""
        self.places[:] = -1
        self.places[list(experts)] = np.arange(len(experts))
        self._tell()

    @property
    def below(self) -> LayerExperts | None:
        """The slots in RAM of the experts that are not resident on the device; None: they are not streamed."""
        return self._below

    def bind(self, below: LayerExperts | None, runs: int) -> None:
        """After a change of residency, when `runs` runs of the model had begun: what was counted goes on to count. Streamed experts
        count runs of their own."""
        if below is self._below:
            return
        self.usage.look(runs if self._below is None else int(self._below.clock[0]))
        after = Usage(self.experts, self._active) if below is None else below.usage
        after.go_on(self.usage, runs if below is None else int(below.clock[0]))
        if self._below is not None:
            self._below.elsewhere[:] = False
        self.usage, self._below = after, below
        self._tell()

    def count(self, ids: np.ndarray, here: np.ndarray) -> None:
        """Ids that a router has chosen in a run, and their slots, of the same shape. What the CPU reads of streamed experts
        it counts itself."""
        if self._below is None:
            self.usage.counts[:, 0] += np.bincount(ids.reshape(-1), minlength=self.experts)
        else:
            self._below.count_elsewhere(np.bincount(ids[here >= 0], minlength=self.experts))

    def wanted(self, layer: int, clock: int) -> list[Wanted]:
        """The best first. Of streamed experts those that are in RAM: nobody waits for the disk."""
        self.usage.look(clock)
        uses = self.usage.frequency
        inside = np.full(self.slots, -1)  # who is at each place; -1: nobody, since a transfer failed
        inside[self.places[self.resident]] = np.flatnonzero(self.resident)
        worth = np.where(inside >= 0, uses[inside], -1.0)
        outside = ~self.resident if self._below is None else ~self.resident & self._below.in_ram
        best = np.flatnonzero(outside)
        best = best[np.argsort(-uses[best], kind="stable")]
        found = []
        for place, expert in zip(np.argsort(worth, kind="stable"), best, strict=False):
            if uses[expert] <= max(0.0, CLEARLY * worth[place] + MORE * (worth[place] > 0)):
                break
            found.append(Wanted(float(worth[place] - uses[expert]), layer, int(expert), int(place)))
        return found

    def leave(self, place: int) -> None:
        """The slot is nobody's while another expert is on its way to it."""
        self.places[self.places == place] = -1
        self._tell()

    def arrive(self, expert: int, place: int, nbytes: int) -> None:
        """It has come there; so many bytes were brought."""
        self.places[expert] = place
        self._tell()
        if self._below is not None:
            self._below.count_upload(nbytes)

    def _tell(self) -> None:
        self.resident[:] = self.places >= 0
        if self._below is not None:
            self._below.elsewhere[:] = self.resident


class DeviceTier:
    """The slots of all layers on a device."""

    def __init__(self, layers: Sequence[DeviceLayer]):
        self.layers = tuple(layers)
        self._runs = 0

    def begin_run(self) -> None:
        self._runs += 1

    def bind(self, below: Sequence[LayerExperts | None]) -> None:
        """After a change of residency: of each layer its slots in RAM."""
        for layer, each in zip(self.layers, below, strict=True):
            layer.bind(each, self._runs)

    @property
    def streamed(self) -> LayerExperts | None:
        """Some layer whose other experts are streamed, which tells what is the same for all; None: none is."""
        return next((layer.below for layer in self.layers if layer.below is not None), None)

    def wanted(self, nbytes: Sequence[int], most: int) -> list[Wanted]:
        """What is worth a transfer of `most` bytes, the largest gain first, and one if that alone is larger; `nbytes`: of an expert
        of each layer."""
        found = sorted(each for index, layer in enumerate(self.layers) for each in layer.wanted(index, self._clock(layer)))
        total = np.cumsum([nbytes[each.layer] for each in found])
        return found[: max(1, int(np.searchsorted(total, most, side="right")))]

    def _clock(self, layer: DeviceLayer) -> int:
        """Runs that have begun, as the layer's counts tell."""
        return self._runs if layer.below is None else int(layer.below.clock[0])


def first_resident(below: LayerExperts | None, slots: int) -> list[int]:
    """The experts that come to a device first: those that were used most, as far as that is known."""
    if below is None or not below.usage.frequency.any():
        return list(range(slots))
    return [int(expert) for expert in np.argsort(-below.usage.frequency, kind="stable")[:slots]]
