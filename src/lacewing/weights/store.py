"""The weights of a model and where their bytes are: lazy (views of the mapped files), eager (RAM) or streamed (both).

Lazy weights are paged in by use and cost no memory of ours. Eager ones are read once, by positioned reads, into
one piece of anonymous memory, each on a cache line, and on the way brought into the order that the backend asks for. Streamed
weights are eager but for the experts of mixtures, some of which are in slots (`weights.experts`). Nobody above can tell the three
apart but by speed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lacewing.backends.weights import TileOrder
from lacewing.errors import ModelFormatError, OptionError, WeightError
from lacewing.formats.checkpoint import Identity, TensorInfo
from lacewing.formats.read import identity, mapped, release
from lacewing.options import Progress
from lacewing.quants.base import Quant
from lacewing.weights.eager import Cancel, Ranges, ranges_bytes, read_weights
from lacewing.weights.experts import ExpertCache, SlotCount
from lacewing.weights.experts.cache import LayerExperts
from lacewing.weights.experts.source import Stacks
from lacewing.weights.tiles import Tiles

GLANCE_SECONDS = 1.0  # between two looks at the files while tokens are made


class _Owned(NamedTuple):
    """Bytes in RAM and the order that they are in (None: row after row), which come and go together."""

    memory: np.ndarray
    tiles: Tiles | None

    def rows(self) -> np.ndarray:
        """uint8 (nbytes,), read-only, row after row; a copy of what is in tile order."""
        if self.tiles is None:
            return self.memory
        rows = np.empty_like(self.memory)
        self.tiles.reorder(self.memory, rows, tiled=True)
        rows.flags.writeable = False
        return rows


@dataclass(frozen=True)
class _Eager:
    """What eager weights have in RAM, by name (tied ones the same), and its bytes; `experts`: the slots of streamed ones."""

    owned: Mapping[str, _Owned]
    nbytes: int
    experts: ExpertCache | None = None


class _Memory:
    """Where all weights of a store look. Its one attribute is set as a whole, so that an interrupt and other threads find the
    weights of one residency."""

    def __init__(self) -> None:
        self.eager: _Eager | None = None  # None: lazy


class Weight:
    """One named tensor. `shape` is outermost first: a linear weight is (out, in), experts are (E, out, in)."""

    def __init__(self, name: str, tensor: TensorInfo, files: Mapping[Path, Identity], memory: _Memory):
        self._files, self._memory = files, memory
        self.name = name  # in the store: the tensor's own may be that of its file
        self.shape = tensor.shape
        self.quant: Quant = tensor.quant
        self.ranges = tensor.ranges
        self.nbytes = tensor.nbytes
        self.scale_block = tensor.scale_block
        self.scales: Weight | None = None  # factors of blocks of rows and columns; a weight of the store as well
        self._views: list[np.ndarray] | None = None
        self._closed = False

    @property
    def _owned(self) -> _Owned | None:
        eager = self._memory.eager
        return None if eager is None else eager.owned.get(self.name)

    @property
    def slots(self) -> LayerExperts | None:
        """Where the experts of a streamed stack are; None: it is not streamed."""
        eager = self._memory.eager
        return None if eager is None or eager.experts is None else eager.experts.layer_of(self.name)

    @property
    def parts(self) -> list[np.ndarray]:
        """uint8 (nbytes,) of each range: one, or one for each index of the first axis. Read-only."""
        if self._closed:
            raise WeightError(f"weight {self.name} was closed with its model")
        owned, views = self._owned, self._views  # taken once: another thread may change the residency meanwhile
        if owned is not None:
            rows, ends = owned.rows(), np.cumsum([part.nbytes for part in self.ranges])
            return [rows[end - part.nbytes : end] for end, part in zip(ends.tolist(), self.ranges, strict=True)]
        if views is None:
            views = self._views = [mapped(part, self._files.get(part.path)) for part in self.ranges]
        return views

    @property
    def data(self) -> np.ndarray:
        """uint8 (nbytes,), read-only: the blocks, row after row. Take it again after the residency has changed.

        Raises WeightError for a lazy weight that is in several places of its files; its `parts` are there all the same.
        """
        owned = self._owned
        if owned is not None:
            return owned.rows()
        parts = self.parts
        if len(parts) != 1:
            raise WeightError(f"weight {self.name} lies in {len(parts)} places of its files; load it eagerly, or use its parts")
        return parts[0]

    @property
    def tiled(self) -> np.ndarray | None:
        """uint8 (nbytes,), read-only: the blocks in tile order, where eager weights have it; `data` and `parts` are then copies."""
        owned = self._owned
        return None if owned is None or owned.tiles is None else owned.memory

    def dequantise(self) -> np.ndarray:
        """All values, float32 of the weight's shape; for tests and the reference backend."""
        parts = [self.quant.dequantise(part) for part in self.parts]
        values = np.concatenate(parts).reshape(self.shape) if parts else np.empty(self.shape, np.float32)
        if self.scales is None:
            return values
        factors, (rows, columns) = self.scales.dequantise(), self.scale_block
        factors = factors.repeat(rows, -2)[..., : self.shape[-2], :].repeat(columns, -1)[..., : self.shape[-1]]
        return np.asarray(values * factors)

    def _unmap(self) -> None:
        views, self._views = self._views, None
        for view in views or ():
            release(view)

    def _close(self) -> None:
        self._views, self._closed = None, True

    def __repr__(self) -> str:
        return f"Weight({self.name}, {'x'.join(map(str, self.shape))}, {self.quant})"


class WeightStore(Mapping[str, Weight]):
    """The weights by name, all of one residency; it starts lazy.

    Names that stand for the same bytes (tied weights) share one memory. `identities`: what the files must be, as of the checkpoint;
    None: what they are now. Other files are refused by whatever looks at them.
    """

    def __init__(self, tensors: Mapping[str, TensorInfo], identities: Mapping[Path, Identity] | None = None):
        paths = {part.path for tensor in tensors.values() for part in tensor.ranges}
        self._files = {path: identity(path) if identities is None else identities[path] for path in paths}
        self._looked = -GLANCE_SECONDS  # when the files were checked last, by the monotonic clock
        self._memory = _Memory()
        self._weights = {name: Weight(name, tensor, self._files, self._memory) for name, tensor in tensors.items()}
        for name, tensor in tensors.items():
            self._weights[name].scales = None if tensor.scales is None else self._weights[tensor.scales]
        self._lock = threading.Lock()
        self._kept: set[str] | None = None  # names of those that are ever eager; None: all
        self._mapped = False  # whether some of the others are used
        self._orders: Mapping[str, TileOrder] = {}
        self._nodes: tuple[int, ...] = ()
        self._mixtures: Sequence[tuple[Stacks, int]] = ()
        self._slots: SlotCount | None = None
        self._closed = False

    def __getitem__(self, name: str) -> Weight:
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    @property
    def residency(self) -> str:
        """ "lazy", "eager" or "streamed"."""
        eager = self._memory.eager
        return "lazy" if eager is None else "eager" if eager.experts is None else "streamed"

    @property
    def experts(self) -> ExpertCache | None:
        """The slots of streamed experts."""
        eager = self._memory.eager
        return None if eager is None else eager.experts

    @property
    def anonymous_bytes(self) -> int:
        """Bytes of those that are in RAM."""
        eager = self._memory.eager
        return 0 if eager is None else eager.nbytes

    @property
    def nbytes(self) -> int:
        """Bytes of all weights, tied ones once."""
        return sum(ranges_bytes(ranges) for ranges in self._places())

    def keep(self, names: set[str] | None, mapped: bool = False) -> None:
        """Which weights memory is for; None: all. The others stay lazy: a device has copies of them, or, if some are `mapped`, they
        are read from their files all the same. Only while lazy."""
        self._refuse_eager()
        self._kept, self._mapped = names, mapped

    def arrange(self, orders: Mapping[str, TileOrder], nodes: tuple[int, ...] = ()) -> None:
        """Which weights are to be in tile order when they are eager: those of which all names are here; and the memory nodes that
        they are dealt out to, (): as the system likes. Only while lazy."""
        self._refuse_eager()
        self._orders, self._nodes = dict(orders), nodes

    def slot(self, mixtures: Sequence[tuple[Stacks, int]], slots: SlotCount | None) -> None:
        """Which stacks are streamed, when the residency is, and how many slots they have then; as of `experts.stacks_of`."""
        self._mixtures, self._slots = mixtures, slots

    def _refuse_eager(self) -> None:
        if self.residency != "lazy":
            raise OptionError("the weights are eager; make them lazy first")

    def set_residency(self, residency: str, progress: Progress | None = None, cancelled: Cancel | None = None) -> None:
        """Bring all weights to "lazy", "eager" or "streamed". `progress` is told the bytes read so far and in all.

        Raises Cancelled, ModelFormatError (a file changed) or OutOfMemoryError; the state before is then whole.
        Arrays taken before stay valid as long as they are held; take `data` again to let their memory go.
        """
        self.prepare(residency, progress, cancelled)()

    def prepare(self, residency: str, progress: Progress | None = None, cancelled: Cancel | None = None) -> Callable[[], None]:
        """As `set_residency`, but what it returns makes the change, in no time: the weights may be used while they are read."""
        if residency not in ("lazy", "eager", "streamed"):
            raise OptionError(f"`residency` is {residency!r}; it must be lazy, eager or streamed")
        if residency == "streamed" and (not self._mixtures or self._slots is None):
            raise OptionError("only the experts of a mixture are streamed; choose lazy or eager")
        eager: _Eager | None = None
        with self._lock:
            self._refuse_closed()
            if residency != self.residency:
                self._check_files()
                if residency != "lazy":
                    eager = self._read(residency == "streamed", progress, cancelled)

        def change() -> None:
            with self._lock:
                self._refuse_closed()
                if residency == self.residency:
                    return
                before, self._memory.eager = self._memory.eager, eager
                if before is not None and before.experts is not None:
                    before.experts.close()
                for name in () if eager is None else eager.owned:
                    self._weights[name]._unmap()

        return change

    def _refuse_closed(self) -> None:
        if self._closed:
            raise WeightError("the weights were closed with their model")

    def _read(self, streamed: bool, progress: Progress | None, cancelled: Cancel | None) -> _Eager:
        tiles, kept, experts = self._tiles(), self._kept, None
        if streamed and self._slots is not None:
            experts = ExpertCache(self._weights, self._mixtures, self._files, self._slots)
            kept = (set(self._weights) if kept is None else kept) - {name for stacks, _ in self._mixtures for name in stacks}
        memory = read_weights(self._places(kept), tiles, self._files, progress, cancelled, self._nodes)
        self._check_files()  # nothing else would tell of a change during the last read
        owned = {ranges: _Owned(each, tiles.get(ranges)) for ranges, each in memory.items()}
        names = {name: owned[weight.ranges] for name, weight in self._weights.items() if weight.ranges in owned}
        nbytes = sum(each.nbytes for each in memory.values()) + (0 if experts is None else experts.nbytes)
        return _Eager(names, nbytes, experts)

    def release(self) -> None:
        """Let the system have the pages of lazy weights that were touched; they come back by use, mostly from its cache."""
        for weight in self._weights.values():
            for view in weight._views or ():
                release(view)

    def check_files(self, *, eager: bool = False) -> None:
        """Raise ModelFormatError if a file was changed, replaced or removed, so that lazy or streamed weights could be wrong now.

        `eager`: also where the weights are all eager, and thereby right.
        """
        if eager or self._mapped or self.residency != "eager":
            self._check_files()

    def glance(self) -> None:
        """`check_files`, but only if the last look at the files is a second ago, so that it may be called for every token.

        A file that is replaced or rewritten is noticed within a second, and before the next request. One that is truncated loses
        its pages at once: reading a lazy weight behind its new end before the next look ends the process (SIGBUS), which even a
        look before every token could not rule out. Eager weights are not affected.
        """
        if (self._mapped or self.residency != "eager") and time.monotonic() - self._looked >= GLANCE_SECONDS:
            self._check_files()

    def _check_files(self) -> None:
        self._looked = time.monotonic()
        for path, before in self._files.items():
            if identity(path) != before:
                raise ModelFormatError(path, "changed or was replaced after it was opened; load the model again")

    def close(self) -> None:
        """Let go of all memory and files. Arrays that others hold stay valid; the weights do not."""
        with self._lock:
            for weight in self._weights.values():
                weight._close()
            before, self._memory.eager, self._closed = self._memory.eager, None, True
        if before is not None and before.experts is not None:
            before.experts.close()

    def _places(self, names: set[str] | None = None) -> dict[Ranges, str]:
        """Of all, or of those."""
        return {weight.ranges: name for name, weight in self._weights.items() if names is None or name in names}

    def _tiles(self) -> dict[Ranges, Tiles]:
        """The order of the places that are to have one: where all names of a place ask for it, and each range is whole tiles."""
        found: dict[Ranges, set[Tiles | None]] = {}
        for name, weight in self._weights.items():
            order = self._orders.get(name)
            tiles = None if order is None else Tiles.of(order, weight.quant, weight.shape[-1])
            if tiles is not None and any(part.nbytes % tiles.nbytes for part in weight.ranges):
                tiles = None
            found.setdefault(weight.ranges, set()).add(tiles)
        agreed = {ranges: wanted.pop() for ranges, wanted in found.items() if len(wanted) == 1}
        return {ranges: tiles for ranges, tiles in agreed.items() if tiles is not None}
