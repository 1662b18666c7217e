"""What the prefix tree is made of."""

from __future__ import annotations

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
