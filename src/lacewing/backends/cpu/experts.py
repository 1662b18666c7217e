"""Running a mixture whose experts are streamed: the run stops where some are missing, and goes on as they come.

Nothing of it costs anything while all chosen experts are in RAM. Outputs of an expert for a token stand apart from all others and
are summed in a fixed order, so that it does not matter which come first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lacewing.backends.cpu.arguments import GROUPS_HEAD
from lacewing.backends.cpu.fetching import Fetches
from lacewing.backends.cpu.lowering.addresses import put_addresses
from lacewing.backends.cpu.lowering.context import ExpertChain, Guess, Lowering
from lacewing.backends.cpu.lowering.stages import columns
from lacewing.backends.weights import ExpertSlots

FEW_STREAMED = 32  # tokens of a run whose experts are likely to be used again at once


class _Pairs(NamedTuple):
    """What `route.group` found: the chosen experts, int64 (n,), in ascending order, and the pairs of each by its id, int64."""

    chosen: np.ndarray
    of: dict[int, np.ndarray]


class ExpertWalk:
    """Of a compiled step. `stop`: address of the word that tells which op stopped a run."""

    def __init__(self, lowering: Lowering, stop: int):
        self._lowering = lowering
        self._slots: ExpertSlots | None = None  # of some chain, which says what is the same for all; None: nothing is streamed
        self._version = -1  # of the slots that tables were told; -1: not yet
        places = {id(op): place for place, op in enumerate(lowering.ops)}
        self._chains: dict[int, tuple[ExpertChain, int, int]] = {}  # and its ops, by the place of its `group`, counted from 1
        for chain in lowering.chains:
            if chain.last is not None:
                first, end = places[id(chain.group)] + 1, places[id(chain.last)] + 1
                chain.group.set(stop=stop, place=first)
                self._chains[first] = chain, first, end
        self.fetches = Fetches(lowering, self._chains, stop)
        self._guesses = {
            places[id(guess.chain.group)] + 1: (guess, places[id(guess.first)], places[id(guess.last)] + 1)
            for guess in lowering.guesses
        }  # and its ops, by the same place

    def bind(self) -> None:
        """After a change of residency."""
        found = (self._slots_of(chain) for chain, _, _ in self._chains.values())
        self._slots = next((slots for slots in found if slots is not None), None)
        self.fetches.bind()
        self._version = -1  # others count from the beginning, and may come to the same number
        if self._slots is not None and not self._guesses:
            self._slots.cannot_guess()

    def _slots_of(self, chain: ExpertChain) -> ExpertSlots | None:
        return self._lowering.weights[chain.names[0]].slots

    def begin_run(self) -> None:
        if self._slots is not None and (version := self._slots.begin_run()) != self._version:
            self._version = version
            for chain, _, _ in self._chains.values():
                self._tell(chain)

    def end_run(self, tokens: int) -> None:
        """A whole run has ended well."""
        if self._slots is not None:
            self._slots.end_run(tokens)

    def fetch(self, stopped: int, tokens: int, run: Callable[[int, int], None], check: Callable[[], None]) -> int:
        """Have the missing experts of the chain that stopped, and run it for all that were chosen; where the run goes on.

        `tokens`: of the run. `run` runs the ops between two places; `check` may raise while it waits. Raises ModelFormatError.
        """
        chain, first, end = self._chains[stopped]
        slots, few = self._slots_of(chain), tokens <= FEW_STREAMED
        if slots is None:
            raise RuntimeError(f"a run stopped at experts that are not streamed: {', '.join(chain.names)}")
        pairs = self._pairs(chain)
        guess = self._guesses.get(stopped) if few and slots.looks_ahead else None
        meanwhile = None if guess is None else lambda: self._guess(*guess, tokens, run)
        try:
            for some in slots.batches(pairs.chosen, few, check, meanwhile):
                self._tell(chain)
                self._put(chain, pairs, some)
                run(first, end)
        finally:
            self._tell(chain)
        return end

    def _guess(self, guess: Guess, first: int, end: int, tokens: int, run: Callable[[int, int], None]) -> None:
        """Have the next chain's slots expect what its router would choose now, those of most tokens first."""
        following = self._slots_of(guess.following)
        if following is None:
            return
        run(first, end)
        ids = columns(self._lowering.memory, guess.ids, tokens).view(np.int32).T.reshape(-1)  # the first choices first
        ids, places, counts = np.unique(ids, return_index=True, return_counts=True)
        following.expect(ids[np.lexsort((places, -counts))].tolist(), counted=True)

    def _words(self, chain: ExpertChain) -> np.ndarray:
        return self._lowering.memory.buffers[chain.area].view(np.int64)

    def _pairs(self, chain: ExpertChain) -> _Pairs:
        words, head = self._words(chain), GROUPS_HEAD // 8
        count, starts = int(words[0]), head + chain.experts
        found = words[starts : starts + count + 1].tolist()
        chosen, order = words[head : head + count].copy(), words[starts + chain.experts + 1 :][: found[-1]].copy()
        ranges = zip(chosen.tolist(), found, found[1:], strict=False)
        return _Pairs(chosen, {expert: order[begin:end] for expert, begin, end in ranges})

    def _put(self, chain: ExpertChain, pairs: _Pairs, some: np.ndarray) -> None:
        """The pairs of some of the chosen experts in place of all of them."""
        words, head, count = self._words(chain), GROUPS_HEAD // 8, len(some)
        starts = head + chain.experts
        order, at = starts + chain.experts + 1, 0
        words[0], words[head : head + count], words[starts] = count, some, 0
        for index, expert in enumerate(some.tolist(), 1):
            part = pairs.of[expert]
            words[order + at : order + at + len(part)] = part
            at += len(part)
            words[starts + index] = at

    def _tell(self, chain: ExpertChain) -> None:
        """The kernels with tables of their own, where the experts are now; others read those of the slots."""
        for name in chain.names:
            slots = self._lowering.weights[name].slots
            for skipped, table in self._lowering.expert_tables.get(name, ()):
                if slots is not None:
                    put_addresses(table, slots.addresses[name], skipped)
