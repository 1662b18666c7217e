"""The weights of a model and where their bytes are: lazy (views of the mapped files), eager (RAM) or streamed (both).

Lazy weights are paged in by use and cost no memory of ours. Eager ones are read once, by positioned reads, into
one piece of anonymous memory, each on a cache line, and on the way brought into the order that the backend asks for. Streamed
weights are eager but for the experts of mixtures, some of which are in slots (`weights.experts`). Nobody above can tell the three
apart but by speed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from lacewing.backends.weights import TileOrder
from lacewing.errors import ModelFormatError, OptionError, WeightError
from lacewing.formats.checkpoint import Identity, TensorInfo
from lacewing.formats.read import identity, release
from lacewing.options import Progress
from lacewing.weights.eager import Cancel, Ranges, ranges_bytes, read_weights
from lacewing.weights.experts import ExpertCache, SlotCount
from lacewing.weights.experts.cache import DEFAULT, StreamOptions
from lacewing.weights.experts.pack import FoundPack, find_pack, plan_pack
from lacewing.weights.experts.source import Stacks
from lacewing.weights.tiles import Tiles
from lacewing.weights.weight import Eager, Memory, Owned, Weight

GLANCE_SECONDS = 1.0  # between two looks at the files while tokens are made


class PackedAs(NamedTuple):
    """The mixtures of a pack, as of `experts.stacks_of`, and the orders of its stacks, as of `Backend.tile_orders`."""

    mixtures: Sequence[tuple[Stacks, int]]
    orders: Mapping[str, TileOrder]


class Change:
    """A change of residency whose bytes are read: `make` makes it, `undo` takes it back, `keep` lets the old memory go."""

    def __init__(self, store: WeightStore, eager: Eager | None, needed: bool):
        self._store, self._new, self._needed = store, eager, needed
        self._old: Eager | None = None
        self._made = False

    def make(self) -> None:
        """From now on the weights are what they are to be; steps are to be bound again."""
        if self._needed:
            self._old, self._made = self._store._memory.eager, True  # before it is made: an interrupt may come at any moment
            self._store._exchange(self._new)

    def undo(self) -> None:
        """As before `make`; nothing is reloaded."""
        if self._made:
            self._store._exchange(self._old)
            self._made = False
        self._close(self._new)

    def keep(self) -> None:
        """Once nothing uses the old memory."""
        if self._made:
            self._close(self._old)
        self._old = None

    @staticmethod
    def _close(eager: Eager | None) -> None:
        if eager is not None and eager.experts is not None:
            eager.experts.close()


class WeightStore(Mapping[str, Weight]):
    """The weights by name, all of one residency; it starts lazy.

    Names that stand for the same bytes (tied weights) share one memory. `identities`: what the files must be, as of the checkpoint;
    None: what they are now. Other files are refused by whatever looks at them.
    """

    def __init__(self, tensors: Mapping[str, TensorInfo], identities: Mapping[Path, Identity] | None = None):
        paths = {part.path for tensor in tensors.values() for part in tensor.ranges}
        self._files = {path: identity(path) if identities is None else identities[path] for path in paths}
        self._looked = -GLANCE_SECONDS  # when the files were checked last, by the monotonic clock
        self._memory = Memory()
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
        self._packs: Sequence[Path] = ()
        self._packed: PackedAs | None = None
        self._pack_problem = ""
        self._by_row: frozenset[str] = frozenset()
        self._stream = DEFAULT
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

    def pack_path(self) -> str:
        """The path of the pack that experts are read from; "": none is."""
        return "" if self.experts is None or self.experts.pack is None else str(self.experts.pack.path)

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

    def slot(
        self,
        mixtures: Sequence[tuple[Stacks, int]],
        slots: SlotCount | None,
        packs: Sequence[Path] = (),
        options: StreamOptions = DEFAULT,
        whole: PackedAs | None = None,
        by_row: frozenset[str] = frozenset(),
    ) -> None:
        """Which stacks are streamed, when the residency is, and how many slots they have then; as of `experts.stacks_of`. `packs`:
        where there may be a copy of the experts that is read instead of the model's files; it was packed as `whole` says,
        None: with these mixtures in the order that is asked for. `by_row`: matrices, each in one place that no other weight shares,
        whose rows are read when tokens need them while experts are streamed."""
        self._mixtures, self._slots, self._packs, self._stream = mixtures, slots, packs, options
        self._packed, self._by_row = whole, by_row

    @property
    def can_stream(self) -> bool:
        """Whether there are experts that could be streamed."""
        return bool(self._mixtures)

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know of streamed weights."""
        experts = self.experts
        found = () if experts is None else (self._pack_problem, experts.history_problem)
        return tuple(filter(None, found))

    def _refuse_eager(self) -> None:
        if self.residency != "lazy":
            raise OptionError("the weights are eager; make them lazy first")

    def set_residency(self, residency: str, progress: Progress | None = None, cancelled: Cancel | None = None) -> None:
        """Bring all weights to "lazy", "eager" or "streamed". `progress` is told the bytes read so far and in all.

        Raises Cancelled, ModelFormatError (a file changed) or OutOfMemoryError; the state before is then whole.
        Arrays taken before stay valid as long as they are held; take `data` again to let their memory go.
        """
        change = self.prepare(residency, progress, cancelled)
        change.make()
        change.keep()

    def prepare(self, residency: str, progress: Progress | None = None, cancelled: Cancel | None = None) -> Change:
        """As `set_residency`, but what it returns makes the change, in no time: the weights may be used while they are read."""
        if residency not in ("lazy", "eager", "streamed"):
            raise OptionError(f"`residency` is {residency!r}; it must be lazy, eager or streamed")
        if residency == "streamed" and (not self._mixtures or self._slots is None):
            raise OptionError("only the experts of a mixture are streamed; choose lazy or eager")
        eager: Eager | None = None
        with self._lock:
            self._refuse_closed()
            if residency != self.residency:
                self._check_model()  # not the pack: nothing but streaming reads it
                if residency != "lazy":
                    eager = self._read(residency == "streamed", progress, cancelled)

        return Change(self, eager, residency != self.residency)

    def _exchange(self, eager: Eager | None) -> None:
        """What the weights have in RAM from now on; steps may still use what they had before."""
        with self._lock:
            self._refuse_closed()
            self._memory.eager = eager
            for name in () if eager is None else eager.owned:
                self._weights[name]._unmap()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise WeightError("the weights were closed with their model")

    def _read(self, streamed: bool, progress: Progress | None, cancelled: Cancel | None) -> Eager:
        tiles, kept, experts = self._tiles(), self._kept, None
        if streamed and self._slots is not None:
            found = self._find_pack()
            on_disk = self._by_row if kept is None else self._by_row & kept
            experts = ExpertCache(
                self._weights, self._mixtures, self._files, self._slots, cancelled, found.pack, self._stream, on_disk
            )
            self._pack_problem = found.problem
            kept = (set(self._weights) if kept is None else kept) - on_disk
            kept -= {name for stacks, _ in self._mixtures for name in stacks}
        try:
            memory = read_weights(self._places(kept), tiles, self._files, progress, cancelled, self._nodes)
            self._check_model()  # nothing else would tell of a change during the last read
        except BaseException:
            if experts is not None:
                experts.close()
            raise
        owned = {ranges: Owned(each, tiles.get(ranges)) for ranges, each in memory.items()}
        names = {name: owned[weight.ranges] for name, weight in self._weights.items() if weight.ranges in owned}
        nbytes = sum(each.nbytes for each in memory.values()) + (0 if experts is None else experts.nbytes)
        return Eager(names, nbytes, experts)

    def _find_pack(self) -> FoundPack:
        mixtures, orders = self._packed or PackedAs(self._mixtures, self._orders)
        found = find_pack(self._packs, lambda: plan_pack(mixtures, self._weights, orders, self._files))
        return found if found.pack is None else replace(found, pack=found.pack.only([stacks for stacks, _ in self._mixtures]))

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
        if time.monotonic() - self._looked >= GLANCE_SECONDS and (self._mapped or self.residency != "eager"):
            self._check_files()

    def _check_files(self) -> None:
        """Of the model, and of the pack that is streamed from."""
        self._looked = time.monotonic()
        self._check_model()
        if self.experts is not None and (pack := self.experts.pack) is not None:
            _check_same({pack.path: pack.identity})

    def _check_model(self) -> None:
        _check_same(self._files)

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


def _check_same(files: Mapping[Path, Identity]) -> None:
    for path, before in files.items():
        if identity(path) != before:
            raise ModelFormatError(path, "changed or was replaced after it was opened; load the model again")
