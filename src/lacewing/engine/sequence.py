"""One sequence: the ids whose state stands, and the pages and units that hold it."""

from __future__ import annotations

from collections.abc import Sequence as Ids

from lacewing.engine.pages import Pages, pages_of
from lacewing.program.states import PAGE


class Sequence:
    """`ids` have been run. `tables` of a paged group: its pages, from page `first` of the sequence on, since earlier ones can no
    longer be seen; of a group of fixed states: the unit that holds the state after `ids`, none before the first run.

    Nobody else writes to its last page or its units. `row`: of the step's tables, None while it does not run.
    """

    def __init__(self, pages: Pages, maker: int = 0):
        self.pages, self.maker = pages, maker  # `maker`: a number that tells whose nodes of the prefix tree are its own
        self.ids: list[int] = []
        self.row: int | None = None
        self.tables: list[list[int]] = [[] for _ in pages.groups]
        self.first = [0] * len(pages.groups)
        self.next_units = [-1] * len(pages.groups)  # what the next run writes; -1: not taken yet
        self.capacity = 0  # positions that have pages

    def reserve(self, count: int, force: bool = False) -> None:
        """Pages of the next `count` positions, and units to write to. Raises Full; what was taken stays."""
        end = len(self.ids) + count
        if end > self.capacity:
            self._extend(pages_of(end), force)
        for group in self.pages.fixed:
            if self.next_units[group] < 0:
                (self.next_units[group],) = self.pages.take(group, 1, force)

    def _extend(self, count: int, force: bool) -> None:
        """To `count` pages in all."""
        self._drop_unseen()
        for group in self.pages.paged:
            table = self.tables[group]
            at = self.first[group] + len(table)
            if at < count:
                fresh = self.pages.take(group, count - at, force)
                table += fresh
                if self.row is not None:
                    self.pages.step.put_table(group, self.row, at, fresh)
        self.capacity = count * PAGE

    def _drop_unseen(self) -> None:
        """Pages that no later query can see."""
        for group in self.pages.limited:
            unseen = self.pages.first_seen(group, len(self.ids)) // PAGE - self.first[group]
            if unseen > 0:
                table = self.tables[group]
                self.pages.drop(group, table[:unseen])
                del table[:unseen]
                self.first[group] += unseen

    def attach(self, row: int) -> None:
        """Run in a row of the step's tables from now on."""
        self.row = row
        for group in self.pages.paged:
            if self.tables[group]:
                self.pages.step.put_table(group, row, self.first[group], self.tables[group])

    def advance(self, ids: Ids[int]) -> None:
        """`ids` have been run after those before; what was written is now what is read."""
        self.ids += ids
        for group in self.pages.fixed:
            before, self.tables[group] = self.tables[group], [self.next_units[group]]
            self.next_units[group] = -1
            if before and self.pages.alone(group, before[0]):
                self.next_units[group] = before[0]
            else:
                self.pages.drop(group, before)

    def owns_units(self) -> bool:
        """Whether a run may write to the units that it reads now, one token later."""
        return all(self.tables[group] and self.pages.alone(group, self.tables[group][0]) for group in self.pages.fixed)

    def drop(self) -> None:
        """Hold nothing any more; `ids` stay to be looked at."""
        for group, table in enumerate(self.tables):
            self.pages.drop(group, table)
            if self.next_units[group] >= 0:
                self.pages.drop(group, [self.next_units[group]])
        self.tables = [[] for _ in self.tables]
        self.next_units = [-1] * len(self.tables)
        self.row, self.capacity = None, 0
