"""Several devices for one model: each computes its part of the program (`offload.cut`), stage by stage."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np

from lacewing.backends.base import Backend, DeviceFacts
from lacewing.backends.batch import StepLimits
from lacewing.backends.step import RoutedLayer, Step
from lacewing.backends.weights import TensorSpec, TileOrder, WeightView
from lacewing.errors import BackendError, OptionError
from lacewing.offload.cache import CacheStatistics, rebalancer_of, skippable_stages, with_resident
from lacewing.offload.cut import ProgramCut
from lacewing.offload.experts import source_name
from lacewing.options import Progress
from lacewing.program.program import Program


@runtime_checkable
class StoresAnew(Protocol):
    """A backend whose device keeps weights in another form, of another size."""

    def stored_bytes(self, weight: TensorSpec, transposed: bool = False) -> int: ...


@runtime_checkable
class HoldsSome(Protocol):
    """A backend that can hold some experts of a stack, and exchange them (`offload.cache`)."""

    def holds_some(self, weight: TensorSpec, transposed: bool) -> bool: ...


class OffloadBackend:
    """The backends of the parts of one program; the first is the one that was asked for, and gives the name."""

    copies_weights = True  # though not all of them

    def __init__(self, backends: Sequence[Backend], cut: ProgramCut):
        if len(backends) != len(cut.parts):
            raise BackendError(f"{len(backends)} devices for {len(cut.parts)} parts of a program")
        self.backends, self.cut = tuple(backends), cut
        self.name = backends[0].name

    def facts(self) -> DeviceFacts:
        """Of the first, with the names of all, and the most threads."""
        found = [backend.facts() for backend in self.backends]
        return replace(
            found[0], name=" and ".join(facts.name for facts in found if facts.name), threads=max(facts.threads for facts in found)
        )

    def room_bytes(self) -> int | None:
        """See `backends.base.HasMemory`: of the first."""
        first = self.backends[0]
        return first.room_bytes() if isinstance(first, HasMemory) else None

    def tile_orders(self, program: Program, weights: Mapping[str, TensorSpec]) -> dict[str, TileOrder]:
        """See `backends.base.PrefersTiles`; of weights that one part alone uses, which those of resident experts are not."""
        used = Counter(source_name(name) for part in self.cut.parts for name in part.program.weights)
        parts = zip(self.backends, self.cut.parts, strict=True)
        orders = [backend.tile_orders(part.program, weights) for backend, part in parts if isinstance(backend, PrefersTiles)]
        return {name: order for found in orders for name, order in found.items() if used[name] == 1}

    def compile(
        self, program: Program, weights: Mapping[str, WeightView], limits: StepLimits, progress: Progress | None = None
    ) -> OffloadStep:
        """`program` is the one that was cut. What one part has taken is given back when another fails."""
        steps: list[Step] = []
        try:
            for backend, part in zip(self.backends, self.cut.parts, strict=True):
                steps.append(backend.compile(part.program, with_resident(part.program, weights), limits, progress))
            host = [not backend.copies_weights for backend in self.backends]
            keeps = all(isinstance(step, KeepsSlots) for step, part in zip(steps, self.cut.parts, strict=True) if part.layers)
            return (SlotKeepingOffloadStep if keeps else OffloadStep)(program, self.cut, steps, limits, host, weights)
        except BaseException:
            for step in steps:
                step.close()
            raise


class OffloadStep:
    """See `backends.base.Step`. `host_bytes`: of its KV cache and buffers those in this machine's RAM.

    `host`: of each step whether it computes on this machine's RAM.
    """

    def __init__(
        self, program: Program, cut: ProgramCut, steps: Sequence[Step], limits: StepLimits, host: Sequence[bool],
        weights: Mapping[str, WeightView],
    ):  # fmt: skip
        self.limits, self.cut, self.steps = limits, cut, tuple(steps)
        self._program, self._host = program, tuple(host)
        self._staged: list[Staged] = []
        for step in steps:
            if not isinstance(step, Staged):
                raise BackendError(f"{type(step).__name__} cannot run a part of a model; choose another backend")
            self._staged.append(step)
        self.kv_bytes = sum(step.kv_bytes for step in steps)
        self.buffer_bytes = sum(step.buffer_bytes for step in steps)
        self._lock, self._closed = threading.Lock(), False
        self._rebalancer, self._skippable = rebalancer_of(cut, steps, weights), skippable_stages(cut)

    @property
    def resident(self) -> CacheStatistics | None:
        """Of experts that a device has some of; None: of no layer."""
        return None if self._rebalancer is None else self._rebalancer.statistics

    def adapt(self) -> None:
        """See `backends.base.Adapts`."""
        with self._lock:
            if self._rebalancer is not None and not self._closed:
                self._rebalancer.run()

    @property
    def host_bytes(self) -> int:
        return sum(step.kv_bytes + step.buffer_bytes for step, host in zip(self.steps, self._host, strict=True) if host)

    @property
    def notices(self) -> tuple[str, ...]:
        return tuple(notice for step in self.steps for notice in getattr(step, "notices", ()))

    def run(self, tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        with self._lock:
            self._refuse_closed()
            for step in self._staged:
                step.begin(tokens, slots, positions, outputs)
            sent: list[list[np.ndarray]] = []
            for number, each in enumerate(self.cut.schedule):
                received = [sent[source][place] for source, place in each.received]
                skippable = self._skippable.get(number)
                nothing = None if skippable is None else skippable.skipped(received)
                sent.append(self._staged[each.device].stage(each.stage, received) if nothing is None else nothing)
            return self._staged[self.cut.schedule[-1].device].logits()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise OptionError("the model has been closed")

    def rebind(self) -> None:
        with self._lock:
            for step in self.steps:
                step.rebind()

    def watch_routes(self, on: bool) -> None:
        with self._lock:
            for step in self.steps:
                step.watch_routes(on)

    def routes(self) -> list[RoutedLayer]:
        """Layer by layer, whichever device the routers are on."""
        found = [
            replace(routed, layer=layer)
            for step, part in zip(self.steps, self.cut.parts, strict=True)
            for routed, layer in zip(step.routes(), part.routers, strict=False)
        ]
        return sorted(found, key=lambda routed: routed.layer)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for step in self.steps:
                step.close()


class SlotKeepingOffloadStep(OffloadStep):
    """Where all devices keep slots: the bytes are those of a device that does the whole, layer after layer."""

    def read_slot(self, slot: int, count: int) -> np.ndarray:
        """See `backends.base.KeepsSlots`."""
        with self._lock:
            self._refuse_closed()
            found: dict[int, np.ndarray] = {}
            for step, part in zip(self.steps, self.cut.parts, strict=True):
                if isinstance(step, KeepsSlots) and part.layers:
                    ends = np.cumsum([self._layer_bytes(layer, count) for layer in part.layers])[:-1]
                    found |= dict(zip(part.layers, np.split(step.read_slot(slot, count), ends), strict=True))
            return np.concatenate([found[layer] for layer in sorted(found)]) if found else np.empty(0, np.uint8)

    def write_slot(self, slot: int, count: int, data: np.ndarray) -> None:
        sizes = [self._layer_bytes(layer, count) for layer in range(len(self._program.layers))]
        if data.dtype != np.uint8 or data.size != sum(sizes):
            raise OptionError(f"the KV cache of {count} positions takes {sum(sizes)} bytes, not {data.nbytes}")
        with self._lock:
            self._refuse_closed()
            layers = np.split(data, np.cumsum(sizes)[:-1])
            for step, part in zip(self.steps, self.cut.parts, strict=True):
                if isinstance(step, KeepsSlots) and part.layers:
                    step.write_slot(slot, count, np.concatenate([layers[layer] for layer in part.layers]))

    def _layer_bytes(self, layer: int, count: int) -> int:
        return count * self._program.layers[layer].stored_width * self._program.kv_itemsize
