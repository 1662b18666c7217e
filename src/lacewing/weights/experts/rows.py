"""A matrix that stays on the disk while experts are streamed, since a token reads one row of it: what it would take in RAM holds
experts instead."""

from __future__ import annotations

from concurrent.futures import Future

import numpy as np

from lacewing.formats.checkpoint import ByteRange
from lacewing.weights.experts.reading import ExpertReader
from lacewing.weights.experts.slots import Check, wait_for
from lacewing.weights.experts.source import offset_in, padded, pages_of
from lacewing.weights.memory import allocate

AT_ONCE = 32  # rows that are read at a time


def row_table_bytes(row_bytes: int) -> int:
    """RAM that a table takes for its reads."""
    return AT_ONCE * padded(row_bytes)


class RowTable:
    """A `RowTable` of `backends/weights.py`: `count` rows, one behind the other in `place`. Not for several threads."""

    def __init__(self, reader: ExpertReader, place: ByteRange, count: int):
        self._reader, self._place, self._row_bytes = reader, place, place.nbytes // count
        size = padded(self._row_bytes)
        memory = allocate(AT_ONCE * size, "rows of embeddings")
        self._regions = [memory[at : at + size] for at in range(0, memory.nbytes, size)]
        self._reads: list[tuple[ByteRange, Future[None]]] = []  # of the regions in use, in their order

    def read(self, rows: np.ndarray, out: np.ndarray, check: Check) -> None:
        """As `RowTable.read`, each row from the disk once."""
        wanted, places = np.unique(rows, return_inverse=True)
        found = np.empty((len(wanted), self._row_bytes), np.uint8)
        for first in range(0, len(wanted), AT_ONCE):
            self._read_some(wanted[first : first + AT_ONCE].tolist(), found[first : first + AT_ONCE], check)
        out[:] = found[places]

    def _read_some(self, rows: list[int], out: np.ndarray, check: Check) -> None:
        self._wait(check)  # for what was abandoned: it still writes to the regions
        for row, region in zip(rows, self._regions, strict=False):
            part = ByteRange(self._place.path, self._place.offset + row * self._row_bytes, self._row_bytes)
            self._reads.append((part, self._reader.submit(part, region[: pages_of(part)])))
        reads = self._reads.copy()
        self._wait(check)
        for row, region, (part, read) in zip(out, self._regions, reads, strict=False):
            read.result()
            row[:] = region[offset_in(part) :][: self._row_bytes]

    def _wait(self, check: Check) -> None:
        """Until no read is under way."""
        while self._reads:
            part, read = self._reads[-1]
            wait_for(read, part.path, check)
            self._reads.pop()
