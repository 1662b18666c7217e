"""Weights into RAM: each place read once, by some threads, in the order of the files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from lacewing.formats.checkpoint import ByteRange, Identity
from lacewing.formats.read import Reader
from lacewing.options import Progress
from lacewing.weights.memory import allocate
from lacewing.weights.tiles import Tiles

Cancel = Callable[[], bool]
Ranges = tuple[ByteRange, ...]
CACHE_LINE = 64
READERS = 2  # threads: fresh memory costs the system more than the copy does


def ranges_bytes(ranges: Ranges) -> int:
    """Bytes of some ranges together."""
    return sum(part.nbytes for part in ranges)


def read_weights(
    places: Iterable[Ranges],
    tiles: Mapping[Ranges, Tiles],
    files: Mapping[Path, Identity],
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
    nodes: tuple[int, ...] = (),
) -> dict[Ranges, np.ndarray]:
    """Of each place its bytes, uint8, read-only, on a cache line; in tile order where `tiles` has one, on these memory nodes.

    `progress` is told the bytes read so far and in all. Raises Cancelled, ModelFormatError (a file changed), OutOfMemoryError.
    """
    ordered = sorted(places, key=lambda ranges: [(str(part.path), part.offset) for part in ranges[:1]])
    done, total, lock = 0, sum(map(ranges_bytes, ordered)), threading.Lock()
    problems: list[BaseException] = []  # the first one counts: it makes the other reader give up

    def advance(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            if progress is not None:
                progress("reading weights", done, total)

    def stopped() -> bool:
        return bool(problems) or (cancelled is not None and cancelled())

    memory = _divide(ordered, nodes)
    left = iter(memory.items())

    def read() -> None:
        try:
            with Reader(files, advance, stopped) as reader:
                while True:
                    with lock:
                        ranges, owned = next(left, (None, None))
                    if ranges is None or owned is None or problems:
                        return
                    _read_place(reader, ranges, tiles.get(ranges), owned)
        except BaseException as error:
            problems.append(error)

    with ThreadPoolExecutor(READERS) as pool:
        try:
            for future in [pool.submit(read) for _ in range(READERS)]:
                future.result()
        except BaseException as error:  # Ctrl-C, here
            problems.append(error)
            raise
    if problems:
        raise problems[0]
    return memory


def _divide(places: list[Ranges], nodes: tuple[int, ...]) -> dict[Ranges, np.ndarray]:
    """One piece of memory for all, so that nearly all of it can be huge pages."""
    sizes = [-(-ranges_bytes(ranges) // CACHE_LINE) * CACHE_LINE for ranges in places]
    arena, starts = allocate(sum(sizes), "the weights", nodes), np.cumsum([0, *sizes]).tolist()
    return {ranges: arena[start : start + ranges_bytes(ranges)] for ranges, start in zip(places, starts, strict=False)}


def _read_place(reader: Reader, ranges: Ranges, tiles: Tiles | None, owned: np.ndarray) -> None:
    start = 0
    for part in ranges:
        out = owned[start : start + part.nbytes]
        if tiles is None:
            reader.into(part, out)
        else:
            tiles.read(reader, part, out)
        start += part.nbytes
    owned.flags.writeable = False
