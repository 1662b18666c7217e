"""The experts of one layer: which ones are in its slots, and how those that are missing come."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import Future

import numpy as np

from lacewing.backends.fetching import Fetching
from lacewing.weights.experts.fetching import KernelReads
from lacewing.weights.experts.policy import Usage
from lacewing.weights.experts.slots import SHARED, Check, Read, Slot, SlotPool, wait_for
from lacewing.weights.experts.source import LayerSource, pages_of

_NEARLY_ALL = 0.9  # of a layer's experts that a run uses: it will use nearly all of the next layer's as well


class LayerExperts:
    """The experts of one layer; an `ExpertSlots` of `backends/weights.py`. `following`: those of the layer that runs next."""

    def __init__(self, pool: SlotPool, source: LayerSource, memory: Sequence[np.ndarray], active: int):
        self._pool, self.clock, self.chosen = pool, pool.clock, pool.statistics.chosen
        self._source, self.tiled = source, source.tiled
        experts = self.experts = source.experts
        self.addresses = {name: np.zeros(experts, np.int64) for name in source.stacks}
        self.usage, self._wave = Usage(experts, active), max(1, min(active, pool.half))
        self._slots = [Slot(each, index) for index, each in enumerate(memory)]
        self._slot_of = np.full(experts, -1, np.int32)
        self._expert_in = np.full(len(memory), -1, np.int32)
        self.elsewhere = np.zeros(experts, bool)  # those that a device above computes: nobody asks for them here
        self.following: LayerExperts | None = None
        self._guessed: dict[int, Read] = {}
        self.kernels = KernelReads(
            pool, source, self.usage, self.addresses, self._slot_of, self._expert_in, self.elsewhere, self._slots
        )
        self._ready, self._ready_since = -1, 0  # index of the slot that is to be filled next, as of that run; -1: not known

    @property
    def fetching(self) -> Fetching | None:
        return self.kernels.fetching

    @property
    def counts(self) -> np.ndarray:
        return self.usage.counts

    @property
    def in_ram(self) -> np.ndarray:
        """Bool (E,): which experts are in slots of the layer."""
        return self._slot_of >= 0

    def rows(self, expert: int) -> dict[str, np.ndarray]:
        """uint8, row after row: the bytes of an expert that is `in_ram`, of each stack; valid until the next run."""
        return self._source.rows(expert, self._slots[int(self._slot_of[expert])].memory)

    def count_elsewhere(self, uses: np.ndarray) -> None:
        """Int64 (E,): how many tokens of a run have used each expert on the device above."""
        found = np.flatnonzero(uses)
        self.counts[:, 0] += uses
        self.counts[found, 1] = self.clock[0]
        self._pool.statistics.elsewhere += len(found)

    def count_upload(self, nbytes: int) -> None:
        """An expert came to the device above."""
        self._pool.statistics.uploaded += 1
        self._pool.statistics.uploaded_bytes += nbytes

    def begin_run(self) -> int:
        return self._pool.begin_run()

    def end_run(self, tokens: int) -> None:
        self._pool.end_run(tokens)

    @property
    def looks_ahead(self) -> bool:
        return self._pool.trial is not None and self._pool.trial.wanted

    def cannot_guess(self) -> None:
        if self._pool.trial is not None:
            self._pool.trial.rule_out()

    def batches(
        self, chosen: np.ndarray, few: bool, check: Check, meanwhile: Callable[[], None] | None = None
    ) -> Iterator[np.ndarray]:
        """The chosen experts, some at a time, when their addresses are there; those that a caller was given before may have gone.

        Those in slots come while others are read. `few`: of a handful of tokens, each of which is likely to be followed by one that
        uses the same: what is missing comes in the order of the reads, as it arrives, so that only the last ones are computed while
        the disk rests. Else experts come to free slots only, and those that are left pass through shared ones, a wave at a time.
        `meanwhile` is called once, when the first reads are under way. `check` is called while it waits, and may raise. Raises
        ModelFormatError for a file that cannot be read.
        """
        self.kernels.stop()
        self.kernels.settle(chosen.tolist(), check)
        there = self._slot_of[chosen] >= 0
        hits, misses = chosen[there], chosen[~there]
        self._pool.statistics.misses += len(misses)
        waves, reads = self._waves(chosen, misses, few, check), deque[list[Read]]()
        portion = len(hits) if few else self._wave
        certain = not few and len(chosen) >= _NEARLY_ALL * (self.experts - np.count_nonzero(self.elsewhere))
        try:
            self._begin_next(waves, reads)
            if meanwhile is not None:
                meanwhile()
            while reads or len(hits):
                if len(reads) < 2 and not self._begin_next(waves, reads) and certain and self.following is not None:
                    certain = False
                    self.following.expect(range(self.following.experts))
                if len(hits) and (few or not reads or not all(read.is_there for read in reads[0])):
                    yield hits[:portion]
                    hits = hits[portion:]
                else:
                    done = self._finish(reads[0], few, check)
                    yield np.array([read.expert for read in done], np.int64)
                    self._release_shared(done)
                    del reads[0][: len(done)]
                    if not reads[0]:
                        reads.popleft()
        finally:
            waves.close()  # it would live as long as somebody keeps what was raised
            for each in reads:
                self._release_shared(each)
                for read in each:
                    if self._slot_of[read.expert] < 0:  # Ctrl-C may come when its addresses are told, and its slot is not yet
                        self._tell_gone(read.expert)
        self.kernels.go_on()

    def _waves(self, chosen: np.ndarray, misses: np.ndarray, few: bool, check: Check) -> Generator[list[Read], None, None]:
        """What is read together: all of a handful of tokens at once, else so many that the next wave can be read meanwhile."""
        guessed = self._pool.claim(self._guessed, misses.tolist())
        if not len(misses):
            return
        try:
            yield from self._begun(chosen, misses, guessed, few, check)
        finally:  # abandoned before they were needed
            for read in guessed.values():
                self._pool.give(read.slot)

    def _begun(
        self, chosen: np.ndarray, misses: np.ndarray, guessed: dict[int, Read], few: bool, check: Check
    ) -> Iterator[list[Read]]:
        begun, at_once = list[Read](), self._ready_slot(chosen) if few else None
        if at_once is not None and (unread := [expert for expert in misses.tolist() if expert not in guessed]):
            begun.append(self._begin_own(unread[0], at_once, None))
            self._pool.reader.let_begin()
            misses = misses[misses != unread[0]]
        scores = np.where(self.elsewhere, -1.0, self.usage.scores(int(self.clock[0])))
        own = self._own_slots(chosen, scores, few, len(misses) + few, {read.slot.own for read in begun})
        if few:
            self._ready, self._ready_since = own.pop().own if len(own) > len(misses) else -1, int(self.clock[0])
        if len(own) < len(misses):  # the most used ones stay
            misses = misses[np.argsort(-scores[misses], kind="stable")]
        stay, pass_on = np.sort(misses[: len(own)]), sorted(misses[len(own) :].tolist(), key=lambda expert: expert not in guessed)
        size = len(stay) if few else self._wave
        for at in range(0, max(len(stay), len(begun)), max(1, size)):
            for expert, slot in zip(stay[at : at + size].tolist(), own[at : at + size], strict=False):
                begun.append(self._begin_own(expert, slot, guessed.pop(expert, None)))
                if few and len(begun) == 1:
                    self._pool.reader.let_begin()
            yield begun
            begun = []
        while pass_on:
            begun, slots = [guessed.pop(expert) for expert in pass_on[: self._pool.half] if expert in guessed], list[Slot]()
            count, wanted = len(begun), pass_on[len(begun) : self._pool.half]
            try:
                slots = self._pool.take(len(wanted), None if begun else check)
                begun += [self._begin(expert, slot) for expert, slot in zip(wanted, slots, strict=False)]
            except BaseException:  # such as Ctrl-C
                for slot in (*(read.slot for read in begun[:count]), *slots):
                    self._pool.give(slot)
                raise
            yield begun
            del pass_on[: count + len(slots)]

    def _ready_slot(self, chosen: np.ndarray) -> Slot | None:
        """The slot that was to be filled next when somebody looked last, if nobody has used its expert since. The first read needs
        no decision then; it is under way while those of the others are made."""
        index, self._ready = self._ready, -1
        if index < 0 or len(chosen) > len(self._slots) or self._is_busy(self._slots[index]):
            return None
        expert = int(self._expert_in[index])
        unused = expert < 0 or (self.counts[expert, 1] <= self._ready_since and expert not in chosen)
        return self._slots[index] if unused else None

    def _own_slots(self, chosen: np.ndarray, scores: np.ndarray, few: bool, most: int, but: Collection[int] = ()) -> list[Slot]:
        """At most so many slots that may be filled: free ones, then those of experts that are not chosen, the least used first; if
        not `few`, only of experts that were never used since the model was loaded, or that are used elsewhere now. `but`: slots
        that others take."""
        stays = np.zeros(self.experts, bool) if few else (self.counts[:, 1] > 0) & ~self.elsewhere
        stays[chosen] = True
        found, others = np.flatnonzero(self._expert_in < 0), np.flatnonzero((self._expert_in >= 0) & ~stays[self._expert_in])
        found = np.concatenate([found, others[np.argsort(scores[self._expert_in[others]], kind="stable")]])
        idle = (slot for slot in map(self._slots.__getitem__, found.tolist()) if slot.own not in but and not self._is_busy(slot))
        return list(itertools.islice(idle, most))

    def _begin_next(self, waves: Iterator[list[Read]], reads: deque[list[Read]]) -> bool:
        """Whether there was another wave."""
        if wave := next(waves, None):
            reads.append(wave)
        return wave is not None

    def _begin(self, expert: int, slot: Slot) -> Read:
        which, parts, at = self._source.reads(expert), list[Future[None]](), 0
        self._pool.keep_busy(slot, parts)  # before they begin: Ctrl-C may come between them
        for part in which.parts:
            region = slot.memory[at : at + pages_of(part)]
            parts.append(self._pool.reader.submit(part, region))
            at += region.nbytes
        return Read(expert, slot, which, parts)

    def _begin_own(self, expert: int, slot: Slot, guessed: Read | None) -> Read:
        """In place of whoever is there. What was guessed has a shared slot, which changes places with this one if it can."""
        self._vacate(slot.own)
        if guessed is None:
            return self._begin(expert, slot)
        if guessed.slot.memory.nbytes != slot.memory.nbytes:
            return guessed._replace(stays=slot)
        self.kernels.will_exchange()
        self._slots[slot.own] = Slot(guessed.slot.memory, slot.own)  # before the other is given: it is never both
        self._pool.give(Slot(slot.memory, SHARED))
        return guessed._replace(slot=self._slots[slot.own])

    def _is_busy(self, slot: Slot) -> bool:
        return self._pool.is_busy(slot) or self.kernels.is_busy(slot.own)

    def _vacate(self, index: int) -> None:
        """Whose expert is on the disk alone from now on. Ctrl-C may come between any two lines: the slot is free last."""
        self.kernels.forget(index)
        expert = int(self._expert_in[index])
        if expert >= 0 and self._slot_of[expert] in (index, -1):
            self._slot_of[expert] = -1
            self._tell_gone(expert)
        self._expert_in[index] = -1

    def _tell_gone(self, expert: int) -> None:
        for addresses in self.addresses.values():
            addresses[expert] = 0

    def _finish(self, reads: list[Read], few: bool, check: Check) -> list[Read]:
        """Wait for a wave; if `few`, for its first and those behind it that have come meanwhile."""
        statistics, began, done = self._pool.statistics, time.perf_counter(), list[Read]()
        for read in reads:
            if few and done and not read.is_there:
                break
            statistics.nbytes += self._arrive(read, check)
            statistics.reads += len(read.parts)
            done.append(read)
        statistics.waited += time.perf_counter() - began
        return done

    def _arrive(self, read: Read, check: Check) -> int:
        """Wait for an expert, and tell where it is; the bytes that were read."""
        for part, which in zip(read.parts, read.which.parts, strict=True):
            wait_for(part, which.path, check)
            part.result()
        self._pool.arrived(read.slot)
        slot = read.stays or read.slot
        if read.stays is not None:
            slot.memory[:] = read.slot.memory[: slot.memory.nbytes]
        for addresses, start in zip(self.addresses.values(), read.which.starts, strict=True):
            addresses[read.expert] = slot.address + start
        if slot.own != SHARED:
            self._slot_of[read.expert], self._expert_in[slot.own] = slot.own, read.expert
        return sum(part.nbytes for part in read.which.parts)

    def _release_shared(self, reads: list[Read]) -> None:
        """Shared slots are for others now."""
        for read in reads:
            if read.slot.own == SHARED:
                self._pool.give(read.slot)
                for addresses in self.addresses.values() if read.stays is None else ():
                    addresses[read.expert] = 0

    # before they are chosen

    def expect(self, experts: Sequence[int], counted: bool = False) -> None:
        """Begin to read those of the experts that are missing, in this order, into shared slots that are free: this layer is likely
        to choose them when it runs next. `counted`: as guesses, in the statistics."""
        self._pool.drop_guess()
        missing = [expert for expert in experts if self._slot_of[expert] < 0 and not self.elsewhere[expert]]
        slots = self._pool.take(min(len(missing), self._pool.half))
        for expert, slot in zip(missing, slots, strict=False):
            self._guessed[expert] = self._begin(expert, slot)
        self._pool.keep_guess(self._guessed, counted)

    def begin_in(self, index: int, expert: int) -> Read:
        """Begin to read an expert into a slot of the layer that is free; for `arrived`."""
        return self._begin(expert, self._slots[index])

    def arrived(self, read: Read, check: Check) -> int:
        """Wait for what `begin_in` began; its bytes."""
        return self._arrive(read, check)
