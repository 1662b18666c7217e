"""The slots of all mixtures of a model, and what comes to them when."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lacewing.errors import Cancelled, ModelFormatError
from lacewing.formats.checkpoint import Identity
from lacewing.options import format_bytes
from lacewing.weights.experts.pack import Pack
from lacewing.weights.experts.policy import Usage
from lacewing.weights.experts.probe import tune
from lacewing.weights.experts.reading import ExpertReader
from lacewing.weights.experts.source import PAGE, ExpertReads, FileLayer, LayerSource, SlotCount, Stack, Stacks, pages_of
from lacewing.weights.memory import allocate

PATIENCE = 60.0  # seconds that a read may take
_TOUCHED = 2**28  # bytes of slots that are touched between two looks at whether loading was cancelled
_GLANCE = 0.05  # seconds between two looks at whether the run was cancelled


@dataclass
class StreamStatistics:
    """Since the model was loaded. Of the experts that runs have chosen, layer by layer: how many were in slots, how many were
    read; reads and bytes read for these, and seconds that runs have waited for them."""

    chosen: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    misses: int = 0
    reads: int = 0
    nbytes: int = 0
    waited: float = 0.0

    @property
    def hits(self) -> int:
        return int(self.chosen[0]) - self.misses

    @property
    def hit_rate(self) -> float | None:
        """None: nothing was chosen."""
        return self.hits / int(self.chosen[0]) if self.chosen[0] else None


class _Place(NamedTuple):
    """A slot: its memory, and which one of the layer it is."""

    memory: np.ndarray
    own: int  # index of a layer's own slots; -1: one that the layers share


class _Read(NamedTuple):
    """An expert that is on its way to a slot."""

    expert: int
    place: _Place
    which: ExpertReads
    parts: list[Future[None]]


def settle(part: Future[None], path: Path, check: Callable[[], None]) -> None:
    """Until a read has ended, well or not. `check` is called now and then, and may raise. Raises ModelFormatError if the disk does
    not answer for long."""
    began = time.perf_counter()
    while not part.done():
        with contextlib.suppress(NotDone):
            part.exception(_GLANCE)
            return
        check()
        if time.perf_counter() - began > PATIENCE:
            raise ModelFormatError(path, f"the disk has not answered for {PATIENCE:.0f} s")


class LayerExperts:
    """The experts of one layer; an `ExpertSlots` of `backends/weights.py`."""

    def __init__(self, cache: ExpertCache, source: LayerSource, memory: Sequence[np.ndarray], active: int):
        self._cache, self.clock, self.chosen = cache, cache.clock, cache.statistics.chosen
        self._source, self.tiled = source, source.tiled
        experts = self.experts = source.experts
        self.addresses = {name: np.zeros(experts, np.int64) for name in source.stacks}
        self._usage, self._wave = Usage(experts), max(1, min(active, cache.shared // 2))
        self._places = [_Place(each, index) for index, each in enumerate(memory)]
        self._slot_of = np.full(experts, -1, np.int32)
        self._expert_in = np.full(len(memory), -1, np.int32)

    @property
    def counts(self) -> np.ndarray:
        return self._usage.counts

    def batches(self, chosen: np.ndarray, few: bool, check: Callable[[], None]) -> Iterator[np.ndarray]:
        """The chosen experts, some at a time, when their addresses are there; those that a caller was given before may have gone.

        First those in slots, while the first others are read. `few`: of a handful of tokens, each of which is likely to be
        followed by one that uses the same; else experts come to free slots only, and those that are left pass through shared ones.
        `check` is called while it waits, and may raise. Raises ModelFormatError for a file that cannot be read.
        """
        there = self._slot_of[chosen] >= 0
        hits, misses = chosen[there], chosen[~there]
        self._cache.statistics.misses += len(misses)
        waves, reads = self._waves(chosen, misses, few, check), list[list[_Read]]()
        try:
            self._begin_next(waves, reads)
            if len(hits):
                yield hits
            while reads:
                self._begin_next(waves, reads)
                yield self._finish(reads[0], check)
                self._release_shared(reads.pop(0))
        finally:
            for each in reads:
                self._release_shared(each)

    def _waves(
        self, chosen: np.ndarray, misses: np.ndarray, few: bool, check: Callable[[], None]
    ) -> Iterator[list[tuple[int, _Place]]]:
        """What is read together: all of a handful of tokens at once, else so many that the next wave can be read meanwhile."""
        if not len(misses):
            return
        scores = self._usage.scores(int(self.clock[0]))
        own = self._own_places(chosen, scores, few)
        if len(own) < len(misses):  # the most used ones stay
            misses = misses[np.argsort(-scores[misses], kind="stable")]
        stay, pass_on = misses[: len(own)], misses[len(own) :]
        size = len(stay) if few else self._wave
        for first in range(0, len(stay), max(1, size)):
            yield list(zip(stay[first : first + size].tolist(), own[first : first + size], strict=False))
        shared = self._cache.shared_places(check) if len(pass_on) else []
        half = len(shared) // 2
        for number, first in enumerate(range(0, len(pass_on), max(1, half))):
            wave = pass_on[first : first + half].tolist()
            yield list(zip(wave, shared[half:] if number % 2 else shared[:half], strict=False))

    def _own_places(self, chosen: np.ndarray, scores: np.ndarray, few: bool) -> list[_Place]:
        """Slots that may be filled: free ones, then, if `few`, those of experts that are not chosen, the least used first."""
        found = np.flatnonzero(self._expert_in < 0)
        if few:
            others = np.flatnonzero((self._expert_in >= 0) & ~np.isin(self._expert_in, chosen))
            found = np.concatenate([found, others[np.argsort(scores[self._expert_in[others]], kind="stable")]])
        return [place for place in map(self._places.__getitem__, found.tolist()) if not self._cache.is_busy(place.memory)]

    def _begin_next(self, waves: Iterator[list[tuple[int, _Place]]], reads: list[list[_Read]]) -> None:
        if wave := next(waves, None):
            reads.append(self._begin(wave))

    def _begin(self, wave: list[tuple[int, _Place]]) -> list[_Read]:
        reads = []
        for expert, place in wave:
            if place.own >= 0:
                self._forget(int(self._expert_in[place.own]))
            which, parts, at = self._source.reads(expert), list[Future[None]](), 0
            for part in which.parts:
                region = place.memory[at : at + pages_of(part)]
                parts.append(self._cache.reader.submit(part, region))
                at += region.nbytes
            self._cache.keep_busy(place.memory, parts)
            reads.append(_Read(expert, place, which, parts))
        return reads

    def _forget(self, expert: int) -> None:
        """It is on the disk alone from now on."""
        if expert >= 0:
            self._expert_in[self._slot_of[expert]] = -1
            self._slot_of[expert] = -1
            for addresses in self.addresses.values():
                addresses[expert] = 0

    def _finish(self, reads: list[_Read], check: Callable[[], None]) -> np.ndarray:
        """Wait for a wave; its ids."""
        began = time.perf_counter()
        for read in reads:
            for part, which in zip(read.parts, read.which.parts, strict=True):
                settle(part, which.path, check)
                part.result()
                self._cache.statistics.reads += 1
                self._cache.statistics.nbytes += which.nbytes
            self._arrive(read)
        self._cache.statistics.waited += time.perf_counter() - began
        return np.array([read.expert for read in reads], np.int64)

    def _arrive(self, read: _Read) -> None:
        self._cache.arrived(read.place.memory)
        at = int(read.place.memory.ctypes.data)
        for addresses, start in zip(self.addresses.values(), read.which.starts, strict=True):
            addresses[read.expert] = at + start
        if read.place.own >= 0:
            self._slot_of[read.expert] = read.place.own
            self._expert_in[read.place.own] = read.expert

    def _release_shared(self, reads: list[_Read]) -> None:
        """Shared slots are for others now."""
        for read in reads:
            if read.place.own < 0:
                for addresses in self.addresses.values():
                    addresses[read.expert] = 0


class ExpertCache:
    """Slots for the experts of a model: of each layer its own, and some that the layers share, one layer at a time.

    Memory is taken once and overwritten in place: giving it back and forth would cost more than the policy gains. Experts are read
    from a `pack`, if there is one, else from the model's `files`; how, is found out at the beginning (`disk`).
    Raises OutOfMemoryError; ModelFormatError for a file that cannot be read; Cancelled, if `cancelled` says so meanwhile.
    """

    def __init__(
        self,
        weights: Mapping[str, Stack],
        layers: Sequence[tuple[Stacks, int]],
        files: Mapping[Path, Identity],
        slots: SlotCount,
        cancelled: Callable[[], bool] | None = None,
        pack: Pack | None = None,
    ):
        self.clock = np.zeros(1, np.int64)  # runs that have begun
        self.statistics = StreamStatistics()
        self.slots, self.shared = slots, slots.shared
        self.pack = pack
        files = files if pack is None else {**files, pack.path: pack.identity}
        self._path = next(iter(files), Path("the model"))  # for errors
        self._busy: dict[int, list[Future[None]]] = {}  # reads that are under way, by the address of the slot
        sources: Sequence[LayerSource] = (
            pack.layers if pack is not None else [FileLayer({name: weights[name] for name in stacks}) for stacks, _ in layers]
        )
        sizes = [source.slot_bytes for source in sources]
        self.nbytes = slots.layer * sum(sizes) + slots.shared * max(sizes, default=0)
        memory, at = allocate(self.nbytes, "the slots of experts"), 0
        for first in range(0, self.nbytes, _TOUCHED):  # so that the system counts it as used from now on, as the plan does
            if cancelled is not None and cancelled():
                raise Cancelled("making room for experts was cancelled")
            memory[first : first + _TOUCHED : PAGE] = 0
        self.disk = tune(sources, files, memory, cancelled)
        self.reader = ExpertReader(files, self.disk.way)
        self._shared = [_Place(memory[at + i * max(sizes) :][: max(sizes)], -1) for i in range(slots.shared)]
        at += slots.shared * max(sizes, default=0)
        self.layers: list[LayerExperts] = []
        self._layer_of: dict[str, LayerExperts] = {}
        for (stacks, active), source, size in zip(layers, sources, sizes, strict=True):
            own = [memory[at + index * size :][:size] for index in range(slots.layer)]
            at += slots.layer * size
            self.layers.append(LayerExperts(self, source, own, active))
            self._layer_of |= dict.fromkeys(stacks, self.layers[-1])

    def layer_of(self, name: str) -> LayerExperts | None:
        """That a stack belongs to; None: it is not streamed."""
        return self._layer_of.get(name)

    def shared_places(self, check: Callable[[], None]) -> list[_Place]:
        """The shared slots, two at least, that no read of an abandoned run still writes to; it may wait, as `settle`."""
        found = [place for place in self._shared if not self.is_busy(place.memory)]
        if len(found) >= 2:
            return found
        for place in self._shared:
            for part in self._busy.get(int(place.memory.ctypes.data), ()):
                settle(part, self._path, check)
        return self._shared

    def keep_busy(self, memory: np.ndarray, parts: list[Future[None]]) -> None:
        self._busy[int(memory.ctypes.data)] = parts

    def arrived(self, memory: np.ndarray) -> None:
        """All of an expert is there."""
        self._busy.pop(int(memory.ctypes.data), None)

    def is_busy(self, memory: np.ndarray) -> bool:
        """Whether a read still writes to a slot."""
        return bool(self._busy) and not all(part.done() for part in self._busy.get(int(memory.ctypes.data), ()))

    def __str__(self) -> str:
        found, experts = self.statistics, max((layer.experts for layer in self.layers), default=0)
        each = f"of each of {len(self.layers)} layers {min(self.slots.layer, experts)} of {experts} experts are in RAM"
        if found.hit_rate is None:
            return f"streamed: {each}"
        return (
            f"streamed: {each}, hit rate {found.hit_rate:.0%}; {format_bytes(found.nbytes)} were read from the disk, "
            f"and runs waited {found.waited:.1f} s for it"
        )

    def close(self) -> None:
        """No expert is read any more."""
        self.reader.close()
