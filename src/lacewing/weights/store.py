"""The weights of a model and where their bytes are: lazy (views of the mapped files) or eager (own memory).

Lazy weights are paged in by use and cost no memory of ours. Eager ones are read once, by positioned reads, into
one piece of anonymous memory, each on a cache line. Nobody above can tell the two apart but by speed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from lacewing.errors import ModelFormatError, OptionError, WeightError
from lacewing.formats.checkpoint import ByteRange, TensorInfo
from lacewing.formats.read import Identity, advise, identity, mapped, read_into
from lacewing.options import Progress
from lacewing.quants.base import Quant
from lacewing.weights.memory import allocate

Cancel = Callable[[], bool]
_Ranges = tuple[ByteRange, ...]
CACHE_LINE = 64
READERS = 2  # threads that read weights


class Weight:
    """One named tensor. `shape` is outermost first: a linear weight is (out, in), experts are (E, out, in)."""

    def __init__(self, tensor: TensorInfo, files: Mapping[Path, Identity] | None = None):
        self._files = files or {}
        self.name = tensor.name
        self.shape = tensor.shape
        self.quant: Quant = tensor.quant
        self.ranges = tensor.ranges
        self.nbytes = tensor.nbytes
        self.scale_block = tensor.scale_block
        self.scales: Weight | None = None  # factors of blocks of rows and columns; a weight of the store as well
        self._owned: np.ndarray | None = None
        self._views: list[np.ndarray] | None = None
        self._closed = False

    @property
    def parts(self) -> list[np.ndarray]:
        """uint8 (nbytes,) of each range: one, or one for each index of the first axis. Read-only."""
        if self._closed:
            raise WeightError(f"weight {self.name} was closed with its model")
        if self._owned is not None:
            ends = np.cumsum([part.nbytes for part in self.ranges])
            return [self._owned[end - part.nbytes : end] for end, part in zip(ends.tolist(), self.ranges, strict=True)]
        if self._views is None:
            self._views = [mapped(part, self._files.get(part.path)) for part in self.ranges]
        return self._views

    @property
    def data(self) -> np.ndarray:
        """uint8 (nbytes,), read-only: the blocks, row after row. Take it again after the residency has changed.

        Raises WeightError for a lazy weight that is in several places of its files; its `parts` are there all the same.
        """
        parts = self.parts
        if self._owned is not None:
            return self._owned
        if len(parts) != 1:
            raise WeightError(f"weight {self.name} lies in {len(parts)} places of its files; load it eagerly, or use its parts")
        return parts[0]

    def dequantise(self) -> np.ndarray:
        """All values, float32 of the weight's shape; for tests and the reference backend."""
        parts = [self.quant.dequantise(part) for part in self.parts]
        values = np.concatenate(parts).reshape(self.shape) if parts else np.empty(self.shape, np.float32)
        if self.scales is None:
            return values
        factors, (rows, columns) = self.scales.dequantise(), self.scale_block
        factors = factors.repeat(rows, -2)[..., : self.shape[-2], :].repeat(columns, -1)[..., : self.shape[-1]]
        return np.asarray(values * factors)

    def _own(self, memory: np.ndarray) -> None:
        views, self._owned, self._views = self._views, memory, None
        for view in views or ():
            advise(view, "release")

    def _disown(self) -> None:
        self._owned = None

    def _close(self) -> None:
        self._owned, self._views, self._closed = None, None, True

    def __repr__(self) -> str:
        return f"Weight({self.name}, {'x'.join(map(str, self.shape))}, {self.quant})"


class WeightStore(Mapping[str, Weight]):
    """The weights by name, all of one residency; it starts lazy.

    Names that stand for the same bytes (tied weights) share one memory.
    """

    def __init__(self, tensors: Mapping[str, TensorInfo]):
        paths = {part.path for tensor in tensors.values() for part in tensor.ranges}
        self._files = {path: identity(path) for path in paths}
        self._weights = {name: Weight(tensor, self._files) for name, tensor in tensors.items()}
        for name, tensor in tensors.items():
            self._weights[name].scales = None if tensor.scales is None else self._weights[tensor.scales]
        self._lock = threading.Lock()
        self.residency = "lazy"
        self._kept: set[str] | None = None  # names of those that are ever eager; None: all
        self.anonymous_bytes = 0
        self._closed = False

    def __getitem__(self, name: str) -> Weight:
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    @property
    def nbytes(self) -> int:
        """Bytes of all weights, tied ones once."""
        return sum(ranges_bytes(ranges) for ranges in self._places())

    def keep(self, names: set[str] | None) -> None:
        """Which weights memory is for, where a device has copies of the others, which stay lazy; None: all. Only while lazy."""
        if self.residency != "lazy":
            raise OptionError("the weights are eager; make them lazy first")
        self._kept = names

    def set_residency(self, residency: str, progress: Progress | None = None, cancelled: Cancel | None = None) -> None:
        """Bring all weights to "lazy" or "eager". `progress` is told the bytes read so far and in all.

        Raises Cancelled, ModelFormatError (a file changed) or OutOfMemoryError; the state before is then whole.
        Arrays taken before stay valid as long as they are held; take `data` again to let their memory go.
        """
        if residency not in ("lazy", "eager"):
            raise OptionError(f"residency is {residency!r}; it must be lazy or eager")
        with self._lock:
            if self._closed:
                raise WeightError("the weights were closed with their model")
            if residency == self.residency:
                return
            self._check_files()
            if residency == "eager":
                memory = self._read_all(progress, cancelled)
                for weight in self._weights.values():
                    if weight.ranges in memory:
                        weight._own(memory[weight.ranges])
                self.anonymous_bytes = sum(owned.nbytes for owned in memory.values())
            else:
                for weight in self._weights.values():
                    weight._disown()
                self.anonymous_bytes = 0
            self.residency = residency

    def release(self) -> None:
        """Let the system have the pages of lazy weights that were touched; they come back by use, mostly from its cache."""
        for weight in self._weights.values():
            for view in weight._views or ():
                advise(view, "release")

    def check_files(self, *, eager: bool = False) -> None:
        """Raise ModelFormatError if a file was changed, replaced or removed, so that lazy weights could be wrong now.

        `eager`: also where the weights are eager, and thereby right.
        """
        if eager or self.residency == "lazy":
            self._check_files()

    def _check_files(self) -> None:
        for path, before in self._files.items():
            if identity(path) != before:
                raise ModelFormatError(path, "changed or was replaced after it was opened; load the model again")

    def close(self) -> None:
        """Let go of all memory and files. Arrays that others hold stay valid; the weights do not."""
        with self._lock:
            for weight in self._weights.values():
                weight._close()
            self.anonymous_bytes = 0
            self._closed = True

    def _places(self, names: set[str] | None = None) -> dict[_Ranges, str]:
        """Of all, or of those."""
        return {weight.ranges: name for name, weight in self._weights.items() if names is None or name in names}

    def _read_all(self, progress: Progress | None, cancelled: Cancel | None) -> dict[_Ranges, np.ndarray]:
        """Read every weight once, in the order of the files."""
        places = sorted(self._places(self._kept).items(), key=lambda item: [(str(part.path), part.offset) for part in item[0][:1]])
        done, total, lock = 0, sum(ranges_bytes(ranges) for ranges, _ in places), threading.Lock()
        problems: list[BaseException] = []  # the first one counts: it makes the other reader give up

        def advance(count: int) -> None:
            nonlocal done
            with lock:
                done += count
                if progress is not None:
                    progress("reading weights", done, total)

        def stopped() -> bool:
            return bool(problems) or (cancelled is not None and cancelled())

        sizes = [-(-ranges_bytes(ranges) // CACHE_LINE) * CACHE_LINE for ranges, _ in places]
        ends = np.cumsum(sizes).tolist()
        arena = allocate(sum(sizes), "the weights")  # one piece, so that nearly all of it can be huge pages

        def read(place: tuple[_Ranges, int]) -> tuple[_Ranges, np.ndarray]:
            ranges, end = place
            nbytes = ranges_bytes(ranges)
            first = end - -(-nbytes // CACHE_LINE) * CACHE_LINE
            start, owned = 0, arena[first : first + nbytes]
            try:
                if not problems:
                    for part in ranges:
                        read_into(part, owned[start : start + part.nbytes], advance, stopped, self._files[part.path])
                        start += part.nbytes
            except BaseException as error:
                problems.append(error)
            owned.flags.writeable = False
            return ranges, owned

        with ThreadPoolExecutor(READERS) as pool:  # fresh memory costs the system more than the copy does
            try:
                memory = dict(pool.map(read, [(ranges, end) for (ranges, _), end in zip(places, ends, strict=True)]))
            except BaseException as error:  # Ctrl-C, here
                problems.append(error)
                raise
        if problems:
            raise problems[0]
        return memory


def ranges_bytes(ranges: _Ranges) -> int:
    """Bytes of some ranges together."""
    return sum(part.nbytes for part in ranges)
