"""What the prefix tree is made of."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from collections.abc import Sequence as Ids
from dataclasses import dataclass

from lacewing.engine.pages import pages_of
from lacewing.engine.sequence import Sequence
from lacewing.program.states import PAGE


class Node:
    """`ids` after those of its parents, at most a page of them; with fewer it has no children.

    `pages`: one of each group of unlimited reach. `maker`: of the sequence that it was made for.
    """

    __slots__ = ("children", "end", "ids", "maker", "pages", "parent", "resume", "used")

    def __init__(self, ids: tuple[int, ...], pages: list[int], parent: Node | None):
        self.ids, self.pages, self.parent = ids, pages, parent
        self.end: int = len(ids) + (parent.end if parent else 0)
        self.children: dict[tuple[int, ...], Node] = {}
        self.resume: Resume | None = None
        self.maker = self.used = 0


class Resume:
    """What a sequence needs to go on at the end of a node: pages of the groups of limited reach, from page `first` on, and units.

    `kept`: a resume point; else it is where a sequence ended, and whoever goes on there takes it.
    """

    __slots__ = ("first", "kept", "nbytes", "node", "tables")

    def __init__(self, node: Node, sequence: Sequence, kept: bool):
        pages, self.node, self.kept = sequence.pages, node, kept
        self.first, self.tables = list(sequence.first), [list[int]() for _ in pages.groups]
        for group in pages.limited:
            begin = pages.first_seen(group, node.end) // PAGE if kept else self.first[group]
            end = pages_of(node.end)
            self.tables[group] = sequence.tables[group][begin - self.first[group] : end - self.first[group]]
            self.first[group] = begin
        for group in pages.fixed:
            self.tables[group] = list(sequence.tables[group])
        self.nbytes = sum(len(table) * each.nbytes for table, each in zip(self.tables, pages.groups, strict=True))


class Leaves:
    """Nodes without children, in the order in which they were used. Entries are corrected when they come first, so that a tree of
    many nodes is not searched for each page that is wanted of it."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Node]] = []
        self._numbers = itertools.count()
        self._most = 64  # entries, above which those of no use are dropped

    def add(self, node: Node) -> None:
        """One that is a leaf now."""
        heapq.heappush(self._heap, (node.used, next(self._numbers), node))
        if len(self._heap) > self._most:
            alive = {each: None for _, _, each in self._heap if _is_leaf(each)}
            self._heap = [(each.used, next(self._numbers), each) for each in alive]
            heapq.heapify(self._heap)
            self._most = 64 + 2 * len(self._heap)

    def oldest(self, fits: Callable[[Node], bool]) -> Node | None:
        """The one that was used longest ago, of those that fit."""
        aside, found = [], None
        while self._heap and found is None:
            used, _, node = heapq.heappop(self._heap)
            if not _is_leaf(node):
                continue
            if used != node.used:
                heapq.heappush(self._heap, (node.used, next(self._numbers), node))
                continue
            found = node if fits(node) else None
            aside.append(node)
        for node in aside:
            heapq.heappush(self._heap, (node.used, next(self._numbers), node))
        return found


def _is_leaf(node: Node) -> bool:
    return node.parent is not None and not node.children


@dataclass(frozen=True)
class Hit:
    """`length` ids can be taken up: whole pages of `path`, the rest in the first ids of `partial`."""

    length: int
    path: list[Node]
    partial: Node | None
    resume: Resume | None


def common_prefix(left: Ids[int], right: Ids[int]) -> int:
    """Length of the longest prefix that both share."""
    shared = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        shared += 1
    return shared
