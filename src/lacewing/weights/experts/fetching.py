"""What kernels are given to have experts read themselves (backends/fetching.py), and what they leave behind."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from lacewing.backends.fetching import Fetching, PartTable
from lacewing.weights.experts.held import HeldFiles
from lacewing.weights.experts.policy import HALF_LIFE, HISTORY_HALF_LIFE, Usage
from lacewing.weights.experts.slots import Check, Patience, Slot, SlotPool
from lacewing.weights.experts.source import LayerSource, offset_in, pages_of

_NAP = 0.0005  # seconds between two looks at whether an expert has come
_WORDS = 6


def part_table(source: LayerSource, files: HeldFiles) -> PartTable:
    """Of reads that are direct; instead of its descriptor the number of a file in `files`, which opens them later."""
    reads = [source.reads(expert) for expert in range(source.experts)]
    numbers = {path: number for number, path in enumerate(files.paths)}
    words = np.zeros((len(reads), max(len(each.parts) for each in reads), _WORDS), np.int64)
    for expert, each in enumerate(reads):
        at = 0
        for index, part in enumerate(each.parts):
            inner, pages = offset_in(part), pages_of(part)
            words[expert, index] = numbers[part.path], part.offset - inner, pages, inner + part.nbytes, at, 0
            at += pages
    counts = np.array([len(each.parts) for each in reads], np.int64)
    nbytes = np.array([sum(part.nbytes for part in each.parts) for each in reads], np.int64)
    return PartTable(counts, words, nbytes, np.array([each.starts for each in reads], np.int64))


class KernelReads:
    """Of one layer. Kernels may have experts read after a run that stopped here has gone well, until the next one stops here:
    whoever reads the experts himself finds what kernels have left, and leaves all as they expect it."""

    def __init__(
        self, pool: SlotPool, source: LayerSource, usage: Usage, addresses: Mapping[str, np.ndarray],
        slot_of: np.ndarray, expert_in: np.ndarray, elsewhere: np.ndarray, slots: Sequence[Slot],
    ):  # fmt: skip
        self._pool, self._source, self._slots = pool, source, slots
        self._is_open, self._has_exchanged = False, False
        self.fetching: Fetching | None = None
        if (files := pool.files) is None:
            return
        kept = np.array([0.5 ** (1 / HALF_LIFE), 0.5 ** (1 / HISTORY_HALF_LIFE)], np.float64)
        coming, (pending, failed) = np.full(len(slots), -1, np.int64), np.zeros((2, len(slots)), np.int64)
        files.ready.append(np.zeros(1, np.int64))
        memory = np.array([slot.address for slot in slots], np.int64)
        self.fetching = Fetching(
            files.ready[-1], usage.active, usage.counts, kept, usage.looked, usage.frequency, usage.history,
            slot_of, expert_in, elsewhere,
            addresses, memory, coming, pending, failed, part_table(source, files), pool.counters, files.threads, files.share,
        )  # fmt: skip

    def stop(self) -> None:
        """Kernels have nothing read until `go_on`."""
        if self.fetching is not None:
            self.fetching.ready[0] = 0

    def go_on(self) -> None:
        """All is as kernels expect it."""
        if self.fetching is None or self._pool.files is None or not self._pool.is_quiet or not self._pool.files.open():
            return
        if self._has_exchanged:
            self.fetching.memory[:] = [slot.address for slot in self._slots]
            self._has_exchanged = False
        if not self._is_open:
            words = self.fetching.parts.words
            words[..., 5] = self._pool.files.buffered[words[..., 0]]
            words[..., 2] = np.where(words[..., 5], words[..., 3], words[..., 2])
            words[..., 0] = self._pool.files.descriptors[words[..., 0]]
            self._is_open = True
        self.fetching.ready[0] = 1

    def will_exchange(self) -> None:
        """The memory of slots changes."""
        self._has_exchanged = True

    def is_busy(self, slot: int) -> bool:
        """Whether a read that a kernel asked for still writes to it."""
        return self.fetching is not None and bool(self.fetching.pending[slot])

    def forget(self, slot: int) -> None:
        """Another expert comes to the slot."""
        if self.fetching is not None:
            self.fetching.coming[slot] = -1

    def settle(self, chosen: Collection[int], check: Check) -> None:
        """Wait for those of the chosen experts that kernels have asked for and then left, and tell where they are; but for those
        whose reads have failed. Ctrl-C may come between any two lines: what kernels look at first comes last. Raises as `check`,
        and ModelFormatError if the disk does not answer for long."""
        if self.fetching is None:
            return
        statistics, began = self._pool.statistics, time.perf_counter()
        self._pool.counters[4] = 0
        for slot in np.flatnonzero(self.fetching.coming >= 0).tolist():
            expert = int(self.fetching.coming[slot])
            if expert not in chosen:
                continue
            self._wait(expert, slot, check)
            if self.fetching.failed[slot]:
                statistics.misses -= 1  # it is missing once more
                if self._pool.files is not None:
                    self._pool.files.distrust()
            elif self.fetching.slot_of[expert] < 0:  # two runs may have asked for it, if the first one was cancelled
                self._tell(expert, slot)
            self.forget(slot)
            statistics.waited += time.perf_counter() - began
            began = time.perf_counter()

    def _wait(self, expert: int, slot: int, check: Check) -> None:
        patience = Patience(self._source.reads(expert).parts[0].path)
        while self.is_busy(slot):
            time.sleep(_NAP)
            check()
            patience.look()

    def _tell(self, expert: int, slot: int) -> None:
        if (fetching := self.fetching) is None:
            return
        reads = self._source.reads(expert)
        fetching.expert_in[slot] = expert
        for addresses, start in reversed(list(zip(fetching.addresses.values(), reads.starts, strict=True))):
            addresses[expert] = fetching.memory[slot] + start
        fetching.slot_of[expert] = slot
        self._pool.statistics.reads += len(reads.parts)
        self._pool.statistics.nbytes += sum(part.nbytes for part in reads.parts)
