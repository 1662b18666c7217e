"""Which pages and units of a step's states are free, and how many hold each of the others: ids and counts, never bytes."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from lacewing.backends.batch import StepLimits
from lacewing.backends.step import Step
from lacewing.errors import OutOfMemoryError
from lacewing.program.states import PAGE, Chunk, Group, PagedState


class Full(Exception):
    """No page or unit of a group is left: something has to be evicted."""

    def __init__(self, group: int):
        super().__init__(f"no page of group {group} is left")
        self.group = group


def state_budget(groups: Sequence[Group], limits: StepLimits) -> int:
    """Bytes that states may take."""
    return sum(group.planned(limits.context, limits.chunk, limits.rows, limits.positions) * group.nbytes for group in groups)


class Pages:
    """Pages of 128 positions, and units, of each group of a step.

    Pools begin empty and grow by doubling; all together stay within `budget` bytes. Who takes a page holds it once; `share` adds a
    holder, `drop` takes one away, and a page that nobody holds is free. The lowest free ids are given first, so that a pool can be
    cut at its end.
    """

    def __init__(self, step: Step, budget: int | None = None):
        self.step, self.groups = step, step.groups
        self.budget = state_budget(step.groups, step.limits) if budget is None else budget
        every = range(len(self.groups))
        self.paged, self.fixed = ([at for at in every if self.groups[at].paged is kind] for kind in (True, False))
        self.limited = [at for at in self.paged if self.groups[at].limited]
        self.unlimited = [at for at in self.paged if at not in self.limited]
        self._limits = [step.limits.pool if at in self.unlimited else None for at in every]
        self._free: list[list[int]] = [[] for _ in self.groups]
        self.holders: list[list[int]] = [[] for _ in self.groups]  # of each page

    def take(self, group: int, count: int, force: bool = False) -> list[int]:
        """`count` pages that nobody holds. Raises Full, and then takes none. `force`: beyond the budget where need be, which parts
        of it that cannot be given back may have used up."""
        free, holders = self._free[group], self.holders[group]
        if len(free) < count:
            self._grow(group, len(holders) + count - len(free), force)
        pages = [heapq.heappop(free) for _ in range(count)]
        for page in pages:
            holders[page] = 1
        return pages

    def share(self, group: int, pages: Sequence[int]) -> None:
        """One more holds them."""
        holders = self.holders[group]
        for page in pages:
            holders[page] += 1

    def drop(self, group: int, pages: Sequence[int]) -> None:
        """One less holds them."""
        holders, free = self.holders[group], self._free[group]
        for page in pages:
            holders[page] -= 1
            if not holders[page]:
                heapq.heappush(free, page)

    def alone(self, group: int, page: int) -> bool:
        """Whether one only holds it."""
        return self.holders[group][page] == 1

    def first_seen(self, group: int, position: int) -> int:
        """The first position of a paged group that must be there for a query at `position`.

        It sees no earlier one. Chunks shorter than a page begin at its border: tables do not say where in a page a chunk begins.
        """
        state = self.groups[group].state
        if not isinstance(state, PagedState):
            return position
        first = state.first_seen(position)
        return first // PAGE * PAGE if isinstance(state.reach, Chunk) and state.reach.size < PAGE else first

    def used(self, group: int) -> int:
        """Pages that somebody holds."""
        return len(self.holders[group]) - len(self._free[group])

    def copy(self, group: int, source: int, to: int, positions: int) -> None:
        """The first `positions` of a page."""
        self.step.copy(group, [(source, to)], positions)

    @property
    def _nbytes(self) -> int:
        return sum(len(each) * group.nbytes for each, group in zip(self.holders, self.groups, strict=True))

    def _grow(self, group: int, needed: int, force: bool) -> None:
        """`needed` pages in all, or more. Raises Full."""
        size, nbytes, limit = len(self.holders[group]), self.groups[group].nbytes, self._limits[group]
        if limit is not None and needed > limit:
            raise Full(group)
        left = (self.budget - self._nbytes) // nbytes
        if size + left < needed:
            self._trim(group)
            left = (self.budget - self._nbytes) // nbytes
        if size + left < needed and not force:
            raise Full(group)
        target = max(needed, min(2 * size, size + left, 2 * size if limit is None else limit))
        for count in dict.fromkeys((target, needed)):
            try:
                self.step.grow(group, count)
            except OutOfMemoryError:
                continue
            self._free[group] += range(size, count)  # higher than all others: still a heap
            self.holders[group] += [0] * (count - size)
            return
        raise Full(group)

    def _trim(self, kept: int) -> None:
        """Give back the free ends of the other pools."""
        for group, holders in enumerate(self.holders):
            size = len(holders)
            while group != kept and size and not holders[size - 1]:
                size -= 1
            if size < len(holders):
                self.step.grow(group, size)
                del holders[size:]
                self._free[group] = [page for page in self._free[group] if page < size]
                heapq.heapify(self._free[group])


def pages_of(positions: int) -> int:
    """Pages that hold so many positions."""
    return -(-positions // PAGE)
