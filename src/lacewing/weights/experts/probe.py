"""How the disk reads experts best, found out with reads of the files themselves: past the page cache or through it, by how many
threads. Which is better differs: direct reads win on fast local disks, and lose on some virtual and some old ones."""

from __future__ import annotations

import contextlib
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lacewing.errors import Cancelled
from lacewing.formats.checkpoint import ByteRange, Identity
from lacewing.weights.experts.reading import ExpertReader, ReadWay
from lacewing.weights.experts.source import ExpertReads, FileLayer, LayerSource, Stacks
from lacewing.weights.memory import allocate

TUNE_SECONDS = 0.42  # of all trials together
RATE_SECONDS = 0.5
_FIRST, _TRIALS, _REGIONS = 2, 10, 8
_LARGEST = 2**22  # bytes of a larger expert that are read: more make no disk faster
_FEWEST = 2**26  # bytes of experts below which nothing is tried: the page cache holds them
_BETTER = 1.1  # times as fast must be what is taken instead of what is usual: trials are short
_GLANCE = 0.05  # seconds between two looks at whether the caller has cancelled

Cancel = Callable[[], bool]


@dataclass(frozen=True)
class DiskReads:
    """How experts are read; `rate`: bytes/s of such reads, 0: not measured; `nbytes`: of one."""

    way: ReadWay
    rate: float = 0.0
    nbytes: int = 0


def tune(
    sources: Sequence[LayerSource], files: Mapping[Path, Identity], memory: np.ndarray, cancelled: Cancel | None = None
) -> DiskReads:
    """The best way, in `TUNE_SECONDS`; longer only on a disk that does not answer one read in that time. Reads go into `memory`,
    page-aligned, which is left as they leave it.

    Raises ModelFormatError for a file that cannot be read, Cancelled.
    """
    usual, nbytes, regions = ReadWay(), _read_bytes(sources), _regions(sources, memory)
    total = sum(source.experts * source.slot_bytes for source in sources)
    if len(regions) < usual.threads or total < _FEWEST:
        return DiskReads(usual, 0.0, nbytes)
    parts, began = _again_and_again(sources), time.perf_counter()

    def tried(way: ReadWay, seconds: float) -> float:
        return _rate(parts, files, way, regions[: way.threads], seconds, cancelled).rate

    first = _rate(parts, files, usual._replace(threads=1), regions[:1], 0.0, cancelled)
    usual = usual._replace(direct=first.way.direct)  # buffered, where direct reads are refused
    once, least = first.rate, usual.threads * nbytes / (TUNE_SECONDS / _TRIALS)  # with less a trial would be a few reads
    for _ in range(_FIRST):  # which may be slow where later ones are not
        if once >= least or time.perf_counter() - began > TUNE_SECONDS / 2:
            break
        once = max(once, tried(usual._replace(threads=1), 0.0))
    if once < least:
        return DiskReads(usual, once, nbytes)
    seconds = max(0.0, TUNE_SECONDS + began - time.perf_counter()) / _TRIALS

    def best_of(way: ReadWay, *others: ReadWay) -> tuple[ReadWay, float]:
        """By turns, twice: another one must be better both times, for the disk has other work as well."""
        rates = [[tried(each, seconds) for each in (way, *others)] for _ in range(2)]
        fastest, each_of = max(first[0] for first in rates), [min(times) for times in zip(*rates, strict=True)]
        best = max(range(1, len(each_of)), key=each_of.__getitem__)
        return (others[best - 1], each_of[best]) if each_of[best] > _BETTER * fastest else (way, fastest)

    way, _ = best_of(usual, usual._replace(direct=False))
    counts = [count for count in (usual.threads // 2, 2 * usual.threads) if count <= len(regions)]
    return DiskReads(*best_of(way, *(way._replace(threads=count) for count in counts)), nbytes)


def measure(
    sources: Sequence[LayerSource], files: Mapping[Path, Identity], seconds: float = 0.0, way: ReadWay | None = None
) -> DiskReads:
    """Reads of experts here and there for so long, as streaming makes them: the best way, or this one.

    Raises ModelFormatError for a file that cannot be read. Time: `seconds`, 0: `RATE_SECONDS`; and that of `tune` without a way.
    """
    memory = allocate(_REGIONS * max(source.slot_bytes for source in sources), "a probe of the disk")
    way = way or tune(sources, files, memory).way
    return _rate(shuffled(sources), files, way, _regions(sources, memory), seconds or RATE_SECONDS)


class AsPacked:
    """Reads of a model's own files that are as large as those of a pack would be, to measure what one would give; a `LayerSource`
    whose bytes mean nothing."""

    tiled: frozenset[str] = frozenset()

    def __init__(self, source: FileLayer, files: Mapping[Path, Identity]):
        self.stacks: Stacks = source.stacks
        self.experts, self._source, self._files = source.experts, source, files
        self.slot_bytes = source.slot_bytes

    def reads(self, expert: int) -> ExpertReads:
        parts = self._source.reads(expert).parts
        nbytes, size = sum(part.nbytes for part in parts), self._files[parts[0].path][2]
        whole = ByteRange(parts[0].path, max(0, min(parts[0].offset, size - nbytes)), min(nbytes, size))
        return ExpertReads((whole,), (0,) * len(self.stacks))

    def rows(self, expert: int, slot: np.ndarray) -> dict[str, np.ndarray]:
        raise RuntimeError("what is read for a measurement is no expert")


def _read_bytes(sources: Sequence[LayerSource]) -> int:
    """Of a usual read."""
    return min(_LARGEST, max(part.nbytes for source in sources for part in source.reads(0).parts))


def _regions(sources: Sequence[LayerSource], memory: np.ndarray) -> list[np.ndarray]:
    """Of some memory, where reads may go to, whichever they are."""
    size = max(source.slot_bytes for source in sources)
    return [memory[at * size :][:size] for at in range(min(_REGIONS, memory.nbytes // size))]


def shuffled(sources: Sequence[LayerSource]) -> Iterator[ByteRange]:
    """What is read for all experts, in an order that no disk foresees, each range once."""
    which = [(layer, expert) for layer, source in enumerate(sources) for expert in range(source.experts)]
    random.Random(0).shuffle(which)
    for layer, expert in which:
        for part in sources[layer].reads(expert).parts:
            if part.nbytes:
                yield ByteRange(part.path, part.offset, min(_LARGEST, part.nbytes))


def _again_and_again(sources: Sequence[LayerSource]) -> Iterator[ByteRange]:
    while True:
        yield from shuffled(sources)


def _rate(
    parts: Iterable[ByteRange],
    files: Mapping[Path, Identity],
    way: ReadWay,
    regions: Sequence[np.ndarray],
    seconds: float,
    cancelled: Cancel | None = None,
) -> DiskReads:
    """Of the next reads, into `regions` by turns, for so long, but at least one; the rate is 0 if none are left."""
    reader, under_way = ExpertReader(files, way), deque[tuple[Future[None], int]]()
    began, done, count, largest = time.perf_counter(), 0, 0, 0
    try:
        for part in parts:
            if not way.direct:
                reader.forget(part)  # what is in the page cache by chance says nothing about the disk
            if len(under_way) == len(regions):
                done += _ended(*under_way.popleft(), cancelled)
            under_way.append((reader.submit(part, regions[count % len(regions)]), part.nbytes))
            count, largest = count + 1, max(largest, part.nbytes)
            if time.perf_counter() - began > seconds:
                break
        while under_way:
            done += _ended(*under_way.popleft(), cancelled)
        return DiskReads(reader.way, done / (time.perf_counter() - began), largest)
    finally:
        reader.close()


def _ended(read: Future[None], nbytes: int, cancelled: Cancel | None) -> int:
    """Wait for a read; its bytes."""
    while cancelled is not None and not read.done():
        with contextlib.suppress(NotDone):
            read.exception(_GLANCE)
        if cancelled():
            raise Cancelled("measuring the disk was cancelled")
    read.result()
    return nbytes
