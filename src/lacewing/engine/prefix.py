"""The prefix tree: what has been run of earlier sequences, found again by ids, token by token.

A node stands for up to 128 ids, and holds their pages of the groups of unlimited reach. Windows, chunks and recurrent states
cannot be taken up everywhere: a `Resume` at the end of a node holds what is needed to go on there.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Ids

from lacewing.engine.nodes import Hit, Leaves, Node, Resume, common_prefix
from lacewing.engine.pages import Full, Pages, pages_of
from lacewing.engine.sequence import Sequence
from lacewing.program.states import PAGE


class PrefixTree:
    """Holds pages and units like a sequence does, until `evict` takes them."""

    def __init__(self, pages: Pages):
        self.pages = pages
        self.resume_bytes = pages.budget // 2  # of all resume points
        self.limited = bool(pages.limited or pages.fixed)
        self.root = Node((), [], None)
        self._leaves = Leaves()
        self._resumes: dict[Resume, None] = {}  # the one that was used longest ago first
        self._clock = 0

    # finding

    def find(self, ids: Ids[int], most: int) -> Hit:
        """The deepest length, up to `most`, at which every group can go on."""
        path, node, at = [], self.root, 0
        while at + PAGE <= most:
            child = node.children.get(tuple(ids[at : at + PAGE]))
            if child is None:
                break
            path.append(child)
            node, at = child, at + PAGE
        rest, partial, shared = tuple(ids[at : min(at + PAGE, most)]), None, 0
        for key, child in node.children.items():
            if shared < len(rest) and key[: shared + 1] == rest[: shared + 1]:  # it shares more than those before
                partial, shared = child, common_prefix(key, rest)
        if not self.limited:
            return Hit(at + shared, path, partial, None)
        return self._deepest(path, partial, at + shared)

    def _deepest(self, path: list[Node], partial: Node | None, matched: int) -> Hit:
        """Where groups of limited reach can go on, within the `matched` ids."""
        depths = {node: node.end for node in path}
        if partial is not None:
            depths[partial] = matched
        length, best = self._borders(matched), None
        for resume in self._resumes:
            node: Node | None = resume.node
            while node is not None and node not in depths:
                node = node.parent
            end = min(resume.node.end, depths[node]) if node is not None else 0
            if end < max(length, 1) or not self._reaches(resume, end):
                continue
            if end > length or best is None or resume.node.end == end:
                length, best = end, resume
        count, part = divmod(length, PAGE)
        tail = path[count] if part and count < len(path) else partial if part else None
        return Hit(length, path[:count], tail, best)

    def _borders(self, matched: int) -> int:
        """The last position from which on no group sees anything earlier, as at the border of a chunk."""
        if self.pages.fixed or not self.pages.limited:
            return 0
        at = max(self.pages.first_seen(group, matched) for group in self.pages.limited)
        return at if all(self.pages.first_seen(group, at) == at for group in self.pages.limited) else 0

    def _reaches(self, resume: Resume, length: int) -> bool:
        """Whether a resume, which may stand further on, has what is needed at `length`."""
        if length == resume.node.end:
            return True
        seen = (self.pages.first_seen(group, length) >= resume.first[group] * PAGE for group in self.pages.limited)
        return not self.pages.fixed and all(seen)

    # taking up

    def acquire(self, ids: Ids[int], most: int, maker: int = 0) -> Sequence:
        """A sequence that holds as much of `ids` as can be taken up, at most `most`. Raises as `Step.copy`."""
        hit, sequence = self.find(ids, most), Sequence(self.pages, maker)
        if not hit.length:
            return sequence
        self._clock += 1
        sequence.ids = list(ids[: hit.length])
        sequence.capacity = pages_of(hit.length) * PAGE
        self._share(hit, sequence)
        try:
            if hit.length % PAGE:
                self._own_tail(hit, sequence)
        except BaseException as error:
            sequence.drop()
            if isinstance(error, Full):
                return Sequence(self.pages, maker)
            raise
        resume = hit.resume
        if resume is not None and resume in self._resumes:
            if not resume.kept and resume.node.end == hit.length:
                self._drop_resume(resume)
            else:
                self._resumes[resume] = self._resumes.pop(resume)
        return sequence

    def _share(self, hit: Hit, sequence: Sequence) -> None:
        nodes = hit.path if hit.partial is None else [*hit.path, hit.partial]
        for node in nodes:
            node.used = self._clock
        for index, group in enumerate(self.pages.unlimited):
            sequence.tables[group] = [node.pages[index] for node in nodes]
        for group in self.pages.limited:
            first = self.pages.first_seen(group, hit.length) // PAGE
            sequence.first[group] = first
            if hit.resume is not None and self.pages.first_seen(group, hit.length) < hit.length:
                at, end = hit.resume.first[group], pages_of(hit.length)
                sequence.tables[group] = hit.resume.tables[group][first - at : end - at]
        for group in self.pages.fixed:
            sequence.tables[group] = list(hit.resume.tables[group]) if hit.resume is not None else []
        for group, table in enumerate(sequence.tables):
            self.pages.share(group, table)

    def _own_tail(self, hit: Hit, sequence: Sequence) -> None:
        """Make the last page, which will be written to, the sequence's own: taken over where nobody else goes on from it, else
        copied. Raises Full."""
        tail, resume = hit.partial, hit.resume
        nobody_else = resume is None or not resume.kept
        if tail is not None and tail.end == hit.length and not tail.children and tail.resume in (None, resume) and nobody_else:
            self._remove(tail)
        for group in self.pages.paged:
            if not sequence.tables[group]:  # at the border of a chunk, within a page
                sequence.tables[group] = self.pages.take(group, 1)
            page = sequence.tables[group][-1]
            if self.pages.alone(group, page):
                continue
            own = self._take(group, page, hit)
            if own != page:
                sequence.tables[group][-1] = own  # first, so that it is given back if copying fails
                try:
                    self.pages.copy(group, page, own, hit.length % PAGE)
                finally:
                    self.pages.drop(group, [page])

    def _take(self, group: int, page: int, hit: Hit) -> int:
        """A page to copy to; `page` itself where no other is left and only the tree still holds it."""
        while True:
            try:
                return self.pages.take(group, 1)[0]
            except Full:
                if hit.partial is not None and hit.partial.parent is not None and not hit.partial.children:
                    self._remove(hit.partial)
                elif hit.resume in self._resumes:
                    self._drop_resume(hit.resume)
                elif not self.evict(group):
                    raise
            if self.pages.alone(group, page):
                return page

    # entering

    def enter(self, sequence: Sequence, length: int, tail: bool = False) -> Node:
        """Share the whole pages of the first `length` ids; the last node.

        `tail`: of a sequence that goes on, also the page that they end in, which whoever takes it up copies. Not where there are
        windows or units, which nobody could go on from.
        """
        self._clock += 1
        node = self.root
        for at in range(length // PAGE):
            ids = tuple(sequence.ids[at * PAGE : (at + 1) * PAGE])
            child = node.children.get(ids)
            node = self._add(node, ids, sequence) if child is None else child
            self._adopt(node, sequence, at)
            node.used = self._clock
        rest = tuple(sequence.ids[node.end : length]) if tail and not self.limited else ()
        if rest and not any(key[: len(rest)] == rest for key in node.children):
            self._add(node, rest, sequence)
        return node

    def _adopt(self, node: Node, sequence: Sequence, at: int) -> None:
        """Hold the pages of a sequence that has run the same ids again, so that they are there once."""
        for index, group in enumerate(self.pages.unlimited):
            page = sequence.tables[group][at]
            if page != node.pages[index]:
                self.pages.share(group, [page])
                self.pages.drop(group, [node.pages[index]])
                node.pages[index] = page

    def _add(self, parent: Node, ids: tuple[int, ...], sequence: Sequence) -> Node:
        """A child that holds the sequence's pages of its ids; shorter ones that it continues are no longer needed."""
        at = parent.end // PAGE
        node = Node(ids, [sequence.tables[group][at] for group in self.pages.unlimited], parent)
        for group, page in zip(self.pages.unlimited, node.pages, strict=True):
            self.pages.share(group, [page])
        shorter = [key for key in parent.children if len(key) < len(ids) and key == ids[: len(key)]]
        for key in shorter:
            if parent.children[key].resume is None:
                self._remove(parent.children[key])
        parent.children[ids] = node
        node.used, node.maker = self._clock, sequence.maker
        self._leaves.add(node)
        return node

    def keep(self, sequence: Sequence, length: int) -> None:
        """Make a resume point at a page border that the sequence has just passed, or reached where there are units."""
        node = self.enter(sequence, length)
        if not self.limited or not node.parent:
            return
        if node.resume is None:
            self._attach(Resume(node, sequence, kept=True))
        node.resume.kept = True  # type: ignore[union-attr]
        total = sum(each.nbytes for each in self._resumes if each.kept)
        for each in [each for each in self._resumes if each.kept]:
            if total > self.resume_bytes:
                total -= each.nbytes
                self._drop_resume(each)

    def put(self, sequence: Sequence) -> None:
        """Take in all that a sequence holds, which has ended or waits."""
        node = self.enter(sequence, len(sequence.ids))
        rest = tuple(sequence.ids[node.end :])
        if rest:
            known = node.children.get(rest)
            longer = not self.limited and any(key[: len(rest)] == rest for key in node.children)
            if known is None and not longer:
                known = self._add(node, rest, sequence)
            node = known or node
        if self.limited and node.parent and node.resume is None:
            self._attach(Resume(node, sequence, kept=False))
        sequence.drop()

    def _attach(self, resume: Resume) -> None:
        resume.node.resume = resume
        self._resumes[resume] = None
        for group, table in enumerate(resume.tables):
            self.pages.share(group, table)

    # leaving

    def evict(self, group: int) -> bool:
        """Drop what was used longest ago, of what takes pages of a group; False: there is nothing left that frees any."""
        limited = group not in self.pages.unlimited
        if limited and self._resumes:
            self._drop_resume(next(iter(self._resumes)))
            return True
        leaf = self._leaves.oldest(self._frees)
        if leaf is not None:
            self._remove(leaf)
            return True
        if self._resumes:
            self._drop_resume(next(iter(self._resumes)))
            return True
        return False

    def _frees(self, node: Node) -> bool:
        return all(self.pages.alone(group, page) for group, page in zip(self.pages.unlimited, node.pages, strict=True))

    def remove(self, sequence: Sequence) -> None:
        """Drop what was made for a sequence that turned out to be broken, and all that goes on from there."""
        node = self.root
        for at in range(0, len(sequence.ids), PAGE):
            ids = tuple(sequence.ids[at : at + PAGE])
            for tail in [each for key, each in node.children.items() if len(key) < len(ids) and key == ids[: len(key)]]:
                if tail.maker == sequence.maker:
                    self._remove_all(tail)
            child = node.children.get(ids)
            if child is None:
                return
            if child.maker == sequence.maker:
                return self._remove_all(child)
            node = child

    def clear(self) -> None:
        self._remove_all(self.root)

    def _remove_all(self, top: Node) -> None:
        """A node and all below it, leaves first; not by recursion, since a long context is a thousand nodes deep."""
        for node in reversed([top, *self._below(top)]):
            self._remove(node)  # but the root

    def _remove(self, node: Node) -> None:
        """A leaf, with its resume."""
        if node.parent is None:
            return
        del node.parent.children[node.ids]
        if not node.parent.children:
            self._leaves.add(node.parent)
        node.parent = None
        for group, page in zip(self.pages.unlimited, node.pages, strict=True):
            self.pages.drop(group, [page])
        if node.resume is not None:
            self._drop_resume(node.resume)

    def _drop_resume(self, resume: Resume) -> None:
        del self._resumes[resume]
        resume.node.resume = None
        for group, table in enumerate(resume.tables):
            self.pages.drop(group, table)
        node = resume.node
        while not self.pages.unlimited and node.parent is not None and not node.children and node.resume is None:
            node, leaf = node.parent, node  # of no use to anybody
            self._remove(leaf)

    def _below(self, top: Node) -> Iterator[Node]:
        """Parents before their children."""
        waiting = list(top.children.values())
        while waiting:
            node = waiting.pop()
            yield node
            waiting += node.children.values()
