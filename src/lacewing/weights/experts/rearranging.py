"""The experts of a model, read some ahead, and brought into the layout of its pack."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lacewing.errors import Cancelled
from lacewing.formats.checkpoint import ByteRange, Identity
from lacewing.weights.experts.pack import PackedLayer, PackPlan
from lacewing.weights.experts.reading import ExpertReader
from lacewing.weights.experts.slots import wait_for
from lacewing.weights.experts.source import FileLayer, pages_of
from lacewing.weights.memory import allocate

_AHEAD = 3  # experts that are read while one is written


class PackedExpert(NamedTuple):
    """One expert of the model in the layout of the pack, valid until the next one, and the ranges that were read besides."""

    number: int  # among all of the pack
    part: ByteRange  # where it is in the pack
    content: np.ndarray
    also: np.ndarray


class Rearranger:
    """Reads the experts of a model, some ahead, and brings each into the layout of the pack."""

    def __init__(
        self, plan: PackPlan, files: Mapping[Path, Identity], target: Path, check: Callable[[], None], also: Identity | None = None
    ):
        self._plan, self._layers, self._check = plan, plan.at(target), check
        self._also = also is not None  # whether the pack's own bytes are read as well
        self._reader = ExpertReader({**files, **({} if also is None else {target: also})})
        most = max(source.slot_bytes for source in plan.sources)
        largest = max(layer.slot_bytes for layer in plan.layers)
        size = most + (largest if self._also else 0)
        self._regions = [allocate(size, "packing experts") for _ in range(_AHEAD + 1)]
        self._most, self._content = most, allocate(largest, "packing experts")

    def experts(self, todo: Iterable[int]) -> Iterator[PackedExpert]:
        """Those of these numbers. Raises ModelFormatError, and what `check` raises."""
        under_way = deque[tuple[int, np.ndarray, list[tuple[ByteRange, Future[None]]]]]()
        places = [(layer, expert) for layer, each in enumerate(self._layers) for expert in range(each.experts)]
        try:
            for count, number in enumerate(todo):
                under_way.append((number, self._regions[count % len(self._regions)], self._begin(count, *places[number])))
                if len(under_way) > _AHEAD:
                    yield self._ended(places, *under_way.popleft())
            while under_way:
                yield self._ended(places, *under_way.popleft())
        finally:
            self._reader.close()

    def _begin(self, count: int, layer: int, expert: int) -> list[tuple[ByteRange, Future[None]]]:
        region, found, at = self._regions[count % len(self._regions)], list[tuple[ByteRange, Future[None]]](), 0
        for part in self._plan.sources[layer].reads(expert).parts:
            found.append((part, self._reader.submit(part, region[at : at + pages_of(part)])))
            at += pages_of(part)
        if self._also:
            (part,) = self._layers[layer].reads(expert).parts
            found.append((part, self._reader.submit(part, region[self._most : self._most + part.nbytes])))
        return found

    def _ended(
        self,
        places: Sequence[tuple[int, int]],
        number: int,
        region: np.ndarray,
        reads: Sequence[tuple[ByteRange, Future[None]]],
    ) -> PackedExpert:
        for part, read in reads:
            wait_for(read, part.path, self._check)
            read.result()
        self._check()
        layer, expert = places[number]
        made = self._layers[layer]
        content = self._content[: made.slot_bytes]
        arrange(self._plan.sources[layer], made, expert, region, content)
        return PackedExpert(number, made.reads(expert).parts[0], content, region[self._most : self._most + made.slot_bytes])


def arrange(source: FileLayer, layer: PackedLayer, expert: int, region: np.ndarray, content: np.ndarray) -> None:
    """What was read of an expert of the model, in the layout of the pack; uint8 of whole slots."""
    content[:] = 0
    for start, to, size, tiles in zip(source.reads(expert).starts, layer.starts, layer.sizes, layer.tiles, strict=True):
        if tiles is None:
            content[to : to + size] = region[start : start + size]
        else:
            rows = np.ascontiguousarray(region[start : start + size])
            tiles.reorder(rows, content[to : to + size], tiled=False)


def checked(cancelled: Callable[[], bool] | None) -> Callable[[], None]:
    def check() -> None:
        if cancelled is not None and cancelled():
            raise Cancelled("packing was cancelled; what is written is kept for the next try")

    return check
