"""A matrix that stays on the disk while experts are streamed, since a token reads one row of it: what it would take in RAM holds
experts instead."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future

import numpy as np

from lacewing.formats.checkpoint import ByteRange
from lacewing.weights.experts.reading import ExpertReader
from lacewing.weights.experts.slots import Check, wait_for
from lacewing.weights.experts.source import offset_in, padded, pages_of
from lacewing.weights.memory import allocate

AT_ONCE = 32  # rows that are read at a time
RECENT = 512  # rows that are kept: half a millisecond for each token that a text repeats


def row_table_bytes(row_bytes: int, tokens: int) -> int:
    """RAM that a table takes: for its reads, for the rows of late, and for those of a run of so many tokens, which are there three
    times while they are brought: each once, in the order of the tokens, and where the step has them."""
    return AT_ONCE * padded(row_bytes) + (RECENT + 3 * tokens) * row_bytes


class RowTable:
    """A `RowTable` of `backends/weights.py`: `count` rows, one behind the other in `place`. Not for several threads."""

    def __init__(self, reader: ExpertReader, place: ByteRange, count: int):
        self._reader, self._place, self._row_bytes = reader, place, place.nbytes // count
        self._regions = self._made_regions()
        self._reads: list[tuple[ByteRange, Future[None]]] = []  # of the regions in use, in their order
        self._kept = allocate(RECENT * self._row_bytes, "rows of embeddings").reshape(RECENT, self._row_bytes)
        self._recent: OrderedDict[int, int] = OrderedDict()  # rows that are kept and where, those used longest ago first

    def _made_regions(self) -> list[np.ndarray]:
        size = padded(self._row_bytes)
        memory = allocate(AT_ONCE * size, "rows of embeddings")
        return [memory[at : at + size] for at in range(0, memory.nbytes, size)]

    def read(self, rows: np.ndarray, out: np.ndarray, check: Check) -> None:
        """As `RowTable.read`; no row of late comes from the disk, and none twice."""
        wanted, places = np.unique(rows, return_inverse=True)
        kept = np.array([self._recent.get(row, -1) for row in wanted.tolist()])
        found, missing = self._kept[kept], np.flatnonzero(kept < 0)
        for first in range(0, len(missing), AT_ONCE):
            some = missing[first : first + AT_ONCE]
            found[some] = self._read_some(wanted[some].tolist(), check)
        self._keep(wanted.tolist(), found)
        out[:] = found[places]

    def _keep(self, rows: list[int], values: np.ndarray) -> None:
        try:
            for row, each in zip(rows[-RECENT:], values[-RECENT:], strict=True):
                if row in self._recent:
                    self._recent.move_to_end(row)
                    continue
                place = len(self._recent) if len(self._recent) < RECENT else self._recent.popitem(last=False)[1]
                self._kept[place] = each
                self._recent[row] = place
        except BaseException:  # such as Ctrl-C: a place that was taken and not given would be counted as another row's
            self._recent.clear()
            raise

    def _read_some(self, rows: list[int], check: Check) -> np.ndarray:
        out = np.empty((len(rows), self._row_bytes), np.uint8)
        self._wait(check)  # for what was abandoned: it still writes to the regions
        try:
            for row, region in zip(rows, self._regions, strict=False):
                part = ByteRange(self._place.path, self._place.offset + row * self._row_bytes, self._row_bytes)
                self._reads.append((part, self._reader.submit(part, region[: pages_of(part)])))
        except BaseException:  # such as Ctrl-C, before a read that has begun was noted: no other one gets its memory
            self._regions, self._reads = self._made_regions(), []
            raise
        reads = self._reads.copy()
        self._wait(check)
        for each, region, (part, read) in zip(out, self._regions, reads, strict=False):
            read.result()
            each[:] = region[offset_in(part) :][: self._row_bytes]
        return out

    def _wait(self, check: Check) -> None:
        """Until no read is under way."""
        while self._reads:
            part, read = self._reads[-1]
            wait_for(read, part.path, check)
            self._reads.pop()
