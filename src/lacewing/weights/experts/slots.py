"""What the layers of a streamed model share: the readers, the slots that they use in turn, and the counters."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures import TimeoutError as NotDone
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lacewing.errors import ModelFormatError
from lacewing.weights.experts.held import HeldFiles
from lacewing.weights.experts.reading import ExpertReader
from lacewing.weights.experts.source import ExpertReads
from lacewing.weights.experts.trial import Trial

PATIENCE = 60.0  # seconds that a read may take
_GLANCE = 0.05  # seconds between two looks at whether the run was cancelled
_STOPPED = 1.0  # seconds from one look to the next that count at most: what takes longer was not the disk
Check = Callable[[], None]  # called now and then by whoever waits; it may raise


@dataclass
class StreamStatistics:
    """Since the model was loaded. Of the experts that runs have chosen, layer by layer: how many were in slots, how many were
    read; reads and bytes read for these, and seconds that runs have waited for them. `warmed`, `warmed_bytes`: of experts that
    came before the first run.

    `guessed`: experts that were read before a router chose them, `guessed_right`: those of them that were then chosen, which count
    as misses all the same; `wasted_bytes`: read for the others. What a prompt reads of its next layer is no guess.

    `elsewhere`: experts that runs have chosen beside those, which a GPU held and computed; `uploaded`, `uploaded_bytes`: of experts
    that have come there from slots.
    """

    chosen: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    misses: int = 0
    reads: int = 0
    nbytes: int = 0
    waited: float = 0.0
    warmed: int = 0
    warmed_bytes: int = 0
    guessed: int = 0
    guessed_right: int = 0
    wasted_bytes: int = 0
    elsewhere: int = 0
    uploaded: int = 0
    uploaded_bytes: int = 0

    @property
    def hits(self) -> int:
        return int(self.chosen[0]) - self.misses

    @property
    def hit_rate(self) -> float | None:
        """Of all that were chosen, those that the disk had nothing to do with; None: nothing was chosen."""
        total = int(self.chosen[0]) + self.elsewhere
        return (self.hits + self.elsewhere) / total if total else None


class Slot(NamedTuple):
    """A place for an expert: its memory, and which one of the layer it is."""

    memory: np.ndarray
    own: int  # index of a layer's own slots; SHARED: one that the layers share

    @property
    def address(self) -> int:
        return int(self.memory.ctypes.data)


SHARED = -1


class Read(NamedTuple):
    """An expert that is on its way to a slot. `stays`: the layer's own slot that it is copied to when it is there."""

    expert: int
    slot: Slot
    which: ExpertReads
    parts: list[Future[None]]
    stays: Slot | None = None

    @property
    def is_there(self) -> bool:
        return all(part.done() for part in self.parts)

    @property
    def has_failed(self) -> bool:
        """As far as is known yet."""
        return any(part.done() and part.exception() is not None for part in self.parts)


class Patience:
    """How long the disk was waited for. Time in which this process was stopped (Ctrl-Z) does not count: its reads were too."""

    def __init__(self, path: Path):
        self._path, self._looked, self._seconds = path, time.perf_counter(), 0.0

    def look(self) -> None:
        """Raises ModelFormatError if it was too long."""
        now = time.perf_counter()
        self._seconds += min(now - self._looked, _STOPPED)
        self._looked = now
        if self._seconds > PATIENCE:
            raise ModelFormatError(self._path, f"the disk has not answered for {PATIENCE:.0f} s")


def wait_for(part: Future[None], path: Path, check: Check) -> None:
    """Until a read has ended, well or not. Raises as `check`, and ModelFormatError if the disk does not answer for long."""
    if part.done():
        return
    patience = Patience(path)
    while not part.done():
        with contextlib.suppress(NotDone):
            part.exception(_GLANCE)
            return
        check()
        patience.look()


class SlotPool:
    """The shared slots, and what is read into which memory.

    A slot whose run was abandoned may still be written to: it is not given out until its reads have ended.
    """

    def __init__(self, reader: ExpertReader, shared: Sequence[np.ndarray], path: Path):
        self.reader, self._path = reader, path  # the path is for errors
        self.clock = np.zeros(1, np.int64)  # runs that have begun
        self.statistics = StreamStatistics()
        self.shared = len(shared)
        self._free = [Slot(memory, SHARED) for memory in shared]
        self._busy: dict[int, list[Future[None]]] = {}  # reads that are under way, by the address of the slot
        self._guess: dict[int, Read] = {}  # of the layer that is expected to run next
        self._counted = False
        self.on_run: Callable[[int], None] = lambda clock: None
        self.trial: Trial | None = None  # None: nothing is guessed
        self.version = 0  # grows when experts came to slots otherwise than to a run
        self.files: HeldFiles | None = None  # for kernels that have experts read
        self.counters = np.zeros(5, np.int64)  # as of `Fetching`

    def begin_run(self) -> int:
        """Count a run that begins; the version of the slots."""
        self._count()
        self.clock += 1
        self.on_run(int(self.clock[0]))
        if self.trial is not None:
            self.trial.begin()
        return self.version

    def _count(self) -> None:
        """What kernels have counted, into the statistics."""
        found = self.counters[:4].copy()
        self.counters[:4] -= found
        self.statistics.misses += int(found[0])
        self.statistics.reads += int(found[1])
        self.statistics.nbytes += int(found[2])
        self.statistics.waited += float(found[3]) / 1e9

    def end_run(self, tokens: int) -> None:
        self._count()
        if self.trial is not None:
            self.trial.end(tokens, self.statistics.guessed)

    @property
    def half(self) -> int:
        """Shared slots of a wave, while another one is read."""
        return max(1, self.shared // 2)

    def take(self, count: int, check: Check | None = None) -> list[Slot]:
        """At most so many shared slots that are free; with `check` one at least, for which it may wait, as `wait_for`."""
        found = self._idle(count)
        if count and check is not None and not found:
            if not self._free:  # what is needed comes before what was guessed
                self.drop_guess()
            self._wait_for_one(check)
            found = self._idle(count)
            if not found:
                raise RuntimeError("all shared slots are taken")
        taken = {slot.address for slot in found}
        self._free = [slot for slot in self._free if slot.address not in taken]
        return found

    def _wait_for_one(self, check: Check) -> None:
        """Until no read writes to some free slot. Patience begins anew with every read that ends."""
        patience = Patience(self._path)
        while self._free and all(map(self.is_busy, self._free)):
            parts = [part for slot in self._free for part in self._busy.get(slot.address, ()) if not part.done()]
            if wait(parts, _GLANCE, FIRST_COMPLETED).done:
                patience = Patience(self._path)
            check()
            patience.look()

    def _idle(self, count: int) -> list[Slot]:
        return [slot for slot in self._free if not self.is_busy(slot)][:count]

    def give(self, slot: Slot) -> None:
        """Back, once nothing computes with it; reads into it may still be under way."""
        self._free.append(slot)

    def keep_busy(self, slot: Slot, parts: list[Future[None]]) -> None:
        self._busy[slot.address] = parts

    def arrived(self, slot: Slot) -> None:
        """All of an expert is there."""
        self._busy.pop(slot.address, None)

    @property
    def is_quiet(self) -> bool:
        """No read that `keep_busy` was told of is under way, and nothing is guessed from one run to the next."""
        return (self.trial is None or self.trial.is_over) and not any(
            not part.done() for parts in self._busy.values() for part in parts
        )

    def is_busy(self, slot: Slot) -> bool:
        """Whether a read still writes to a slot."""
        return bool(self._busy) and not all(part.done() for part in self._busy.get(slot.address, ()))

    # what was begun before a router chose it, for one layer at a time

    def keep_guess(self, guess: dict[int, Read], counted: bool) -> None:
        """The reads by expert, a layer's own dictionary; `counted`: in the statistics, as guesses."""
        self._guess, self._counted = guess, counted
        self.statistics.guessed += len(guess) if counted else 0

    def claim(self, guess: dict[int, Read], experts: Sequence[int]) -> dict[int, Read]:
        """The guesses for a layer that it needs. All others are dropped, also reads that failed: the run repeats those itself, and
        fails if they fail again."""
        found = {expert: guess.pop(expert) for expert in experts if expert in guess and not guess[expert].has_failed}
        self.statistics.guessed_right += len(found) if self._counted else 0
        self.drop_guess()
        return found

    def drop_guess(self) -> None:
        """Reads that have not begun never will; the slots are free when the others have ended."""
        for read in self._guess.values():
            begun = [part.nbytes for part, done in zip(read.which.parts, read.parts, strict=True) if not done.cancel()]
            nbytes = sum(begun)
            self.statistics.reads += len(begun)
            self.statistics.nbytes += nbytes
            self.statistics.wasted_bytes += nbytes if self._counted else 0
            self.give(read.slot)
        self._guess.clear()
