"""A compiled program: what every backend's step offers, and the parts of it that are the same for all.

Public methods take the lock and refuse a closed step; a backend fills in those whose names begin with an underscore. What only some
devices do has a default here, so that nobody asks what kind of step it is.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from lacewing.backends.batch import Batch, Candidates, Draw, StepLimits, Wanted, check_batch
from lacewing.backends.choice import RowMaxima, candidates_of
from lacewing.backends.weights import CacheStatistics, WeightView
from lacewing.errors import BackendError, Cancelled, OptionError
from lacewing.program.operands import View
from lacewing.program.ops import Embed
from lacewing.program.program import Program
from lacewing.program.states import PAGE, Group


@dataclass(frozen=True)
class RoutedLayer:
    """What the router of one layer decided in a run: ids (T, A) int32, probabilities (T, E) float32 before the choice."""

    layer: int
    ids: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class KernelTime:
    """All dispatches of a kernel in a run: how many, their time by the device's own clock, the bytes of weights that they read."""

    name: str
    calls: int
    seconds: float
    nbytes: int


@dataclass(frozen=True)
class SwapIn:
    """An expert that comes to a place of the stacks on a device; `weights`: of each stack, by its name, that one (1, ...)."""

    place: int
    weights: Mapping[str, WeightView]


class Step(ABC):
    """A compiled program with its buffers and the pages and units of its states. Threads take turns.

    A sequence runs in a row of the block tables: `grow` makes pages, `put_table` says which page of a group holds which 128
    positions of a row, `run` reads and writes them. To forget a suffix, just write over it.
    """

    buffer_bytes: int  # activations and scratch
    notices: tuple[str, ...] = ()  # what a person should know, such as weights that the device keeps as another quant
    most_candidates = 0  # `choose` of up to so many is made by the device, which spares the host the whole row
    runs_ahead = False  # `greedy` and `drawn` keep the device busy while the host reads a token
    can_profile = False
    maxima: RowMaxima | None = None  # of the rows of the last `run`, valid as they are; None: the device does not look for them

    def __init__(self, program: Program, limits: StepLimits):
        self.program, self.limits = program, limits
        self.groups: tuple[Group, ...] = program.groups
        self.fixed = sum(not group.paged for group in self.groups)
        self.sizes = [0] * len(self.groups)  # pages or units of each group
        widths = [op.out.width for op in program.ops if isinstance(op, Embed)]
        self._width = widths[0] if len(widths) == 1 else 0  # of embeddings that a caller may give
        self._lock = threading.RLock()
        self._closed = False
        self._abort = threading.Event()
        self._hidden_rows = np.empty(0, np.int32)  # of the last run, those whose hidden states are wanted

    # what a backend fills in

    @abstractmethod
    def _run(self, batch: Batch) -> np.ndarray:
        """The checked batch; float32 (R, V), valid until the next run."""

    @abstractmethod
    def _hidden(self, view: View, which: np.ndarray) -> np.ndarray:
        """Float32 (H, D), the columns of a view at these tokens of the last run."""

    @abstractmethod
    def _grow(self, group: int, count: int) -> None:
        """Make room for `count` pages or units in all, more or fewer than before; what stays keeps its bytes."""

    @abstractmethod
    def _put_table(self, group: int, row: int, first: int, ids: np.ndarray) -> None: ...

    @abstractmethod
    def _copy(self, group: int, pairs: Sequence[tuple[int, int]], positions: int) -> None: ...

    @abstractmethod
    def _read(self, group: int, ids: Sequence[int]) -> np.ndarray: ...

    @abstractmethod
    def _write(self, group: int, ids: Sequence[int], data: np.ndarray) -> None: ...

    @abstractmethod
    def _close(self) -> None:
        """Free everything; called once."""

    # running

    def run(self, batch: Batch) -> np.ndarray:
        """Run the program over a batch; float32 (R, V), the logits of its `outputs`, valid until the next run.

        All earlier positions that a token can see have been run before or come earlier in the batch, and the tables have their
        pages. Raises OptionError for what is out of range, Cancelled after `abort`; then the positions of the batch, and the units
        that it writes, are undefined, and everything else is as before.
        """
        with self._turn():
            return self._run(self._checked(batch))

    def choose(self, batch: Batch, wanted: Sequence[Wanted]) -> list[Candidates]:
        """As `run`, but the largest logits of each output in place of whole rows: one `Wanted` for each of `outputs`. Raises
        NumericError for NaN or infinite logits, as `run` does otherwise."""
        if len(wanted) != len(batch.outputs):
            raise OptionError(f"{len(batch.outputs)} outputs came with {len(wanted)} wishes")
        with self._turn():
            return self._choose(self._checked(batch), wanted)

    def _choose(self, batch: Batch, wanted: Sequence[Wanted]) -> list[Candidates]:
        return [candidates_of(row, each.settled()) for row, each in zip(self._run(batch), wanted, strict=True)]

    def greedy(self, batch: Batch, count: int) -> Generator[np.ndarray, None, None]:
        """Run a batch of one token a row, give the ids of the largest logits (the lowest of equals), int64 (N,), run these at the
        next positions, and so on, `count` times. The tables already have the pages of all `count` positions.

        Rows may be written one position further than what was given out. Units change their roles with every token: after n tokens
        the state stands in `units_out` if n is odd, else in `units_in`. A caller that stops early closes the iterator; one that
        runs the step otherwise in between must not go on with it. Raises as `choose`.
        """
        ids, wanted = batch, [Wanted()] * len(batch.tokens)
        outputs = np.arange(len(batch.tokens), dtype=np.int32)
        for _ in range(count):
            found = self.choose(replace(ids, outputs=outputs), wanted)
            tokens = np.array([each.ids[0] for each in found], np.int64)
            yield tokens
            ids = ids.following(tokens)

    def drawn(
        self, batch: Batch, draws: Sequence[Draw], count: int, numbers: Callable[[int], Sequence[float]]
    ) -> Generator[tuple[list[Candidates], np.ndarray], None, None]:
        """As `greedy`, but with the candidates of each row, and ids int64 (N,) that run next: what the step expects to be drawn.

        `numbers(n)` gives the random number of each row, from 0 to 1, for the token after n others. Who draws another token than
        the one that is expected must close the iterator and begin anew.
        """
        batch = replace(batch, outputs=np.arange(len(batch.tokens), dtype=np.int32))
        for _ in range(count):
            found = self.choose(batch, [Wanted(each.count) for each in draws])
            tokens = np.array([each.ids[0] for each in found], np.int64)
            yield found, tokens
            batch = batch.following(tokens)

    def hidden(self) -> np.ndarray:
        """Float32 (H, D), after `run`, `choose` or the last stage: the states of `Batch.hidden` behind the final norm, as the
        output head would read them; it reads those of `outputs` alone. Valid until the next run."""
        with self._turn(keep_abort=True):
            if self.program.head is None:
                raise BackendError("the output head is in another part of the program; ask that one for hidden states")
            return self._hidden(self.program.head.x, self._hidden_rows)

    def abort(self) -> None:
        """Make the run that is under way raise Cancelled soon; may be called by any thread. Without a run it does nothing."""
        self._abort.set()

    # parts of a program that several devices share (`program.ops.Receive` and `Send`)

    def begin(self, batch: Batch) -> None:
        """What the stages of the run that begins now are about; as for `run`, with the same errors."""
        with self._turn():
            self._begin(self._checked(batch))

    def stage(self, index: int, received: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run a stage, each once and in their order, but for those left out. `received`: float32 (T, width) of each view of its
        `Receive`. Returns the same of its `Send`, valid until the next call. The bytes matter: some columns hold integers.
        """
        with self._turn(keep_abort=True):
            return self._stage(index, received)

    def logits(self) -> np.ndarray:
        """Float32 (R, V), after the stage that makes them; valid until the next run."""
        raise BackendError(f"{type(self).__name__} cannot run a part of a model; choose another backend")

    def _begin(self, batch: Batch) -> None:
        raise BackendError(f"{type(self).__name__} cannot run a part of a model; choose another backend")

    def _stage(self, index: int, received: Sequence[np.ndarray]) -> list[np.ndarray]:
        raise BackendError(f"{type(self).__name__} cannot run a part of a model; choose another backend")

    def put_experts(self, swaps: Sequence[SwapIn], begin: Callable[[], None]) -> None:
        """Write experts into stacks between two runs; `begin` is called when nothing but the writing can fail any more.

        Raises OutOfMemoryError, BackendError.
        """
        raise BackendError(f"{type(self).__name__} cannot swap experts in")

    # the bytes of states

    def grow(self, group: int, count: int) -> None:
        """Make room for `count` pages or units of a group in all (fewer give memory back). Raises OutOfMemoryError; then nothing
        has changed."""
        with self._turn():
            self._grow(group, count)
            self.sizes[group] = count

    def put_table(self, group: int, row: int, first: int, ids: Sequence[int] | np.ndarray) -> None:
        """Pages of positions `first * 128` on of a row. Raises OptionError for pages that are not there."""
        with self._turn(keep_abort=True):
            pages = np.asarray(ids, np.int32)
            if not self.groups[group].paged or not 0 <= row < self.limits.rows:
                raise OptionError(f"group {group} has no table of row {row}")
            if first < 0 or first + len(pages) > self.table_width:
                raise OptionError(f"page {first + len(pages) - 1} of a row is beyond its context of {self.limits.context} tokens")
            self._refuse_unknown(group, pages)
            self._put_table(group, row, first, pages)

    def copy(self, group: int, pairs: Sequence[tuple[int, int]], positions: int = PAGE) -> None:
        """Copy units, or the first `positions` of pages (others are undefined then), (from, to) each; no page is in two pairs."""
        with self._turn(keep_abort=True):
            self._refuse_unknown(group, np.array(pairs, np.int64).reshape(-1))
            self._copy(group, pairs, positions)

    def read(self, group: int, ids: Sequence[int]) -> np.ndarray:
        """uint8 (N, bytes of a page): member state after member state, part after part, (heads, 128, width) each in the part's own
        dtype; of units each part's float32. The same bytes mean the same on every backend."""
        with self._turn(keep_abort=True):
            self._refuse_unknown(group, np.asarray(ids, np.int64))
            return self._read(group, ids)

    def write(self, group: int, ids: Sequence[int], data: np.ndarray) -> None:
        """What `read` gave. Raises OptionError where the size is another."""
        with self._turn(keep_abort=True):
            self._refuse_unknown(group, np.asarray(ids, np.int64))
            shape = (len(ids), self.groups[group].nbytes)
            if data.dtype != np.uint8 or data.shape != shape:
                raise OptionError(f"{len(ids)} pages take uint8 of shape {shape}, not {data.dtype} of {data.shape}")
            self._write(group, ids, data)

    @property
    def table_width(self) -> int:
        """Pages that a row may have."""
        return -(-self.limits.context // PAGE)

    @property
    def state_bytes(self) -> int:
        """Of all pages and units that there are now."""
        return sum(size * group.nbytes for size, group in zip(self.sizes, self.groups, strict=True))

    @property
    def host_bytes(self) -> int:
        """Of states and buffers those in this machine's RAM; a device with its own memory has none here."""
        return self.state_bytes + self.buffer_bytes

    # what else a device may do

    def rebind(self) -> None:
        """Look up all weight addresses again, after the residency changed."""

    def watch_routes(self, on: bool) -> None:
        """Keep what the routers of a mixture of experts decide; off at first."""

    def routes(self) -> list[RoutedLayer]:
        """The decisions of the last run, layer by layer, valid until the next; empty where none are kept or made."""
        return []

    @property
    def cache_statistics(self) -> CacheStatistics | None:
        """Of experts that a device has some of; None: there are none such."""
        return None

    def rebalance(self) -> None:
        """Suit itself to what has run, such as where experts are; between requests, after long prompts. Raises BackendError."""

    def keep_experts(self) -> None:
        """Leave experts where they are from now on, so that runs can be compared bit by bit."""

    def profile(self, tokens: int, position: int) -> tuple[KernelTime, ...]:
        """The kernels of a run of `tokens` in row 0 from `position` on, whose pages are written over, the slowest first; of one
        token with the choice of the next. Raises BackendError for a device without a clock."""
        raise BackendError(f"{type(self).__name__} cannot time its kernels")

    def copy_rate(self) -> float:
        """Bytes/s, read and written, of a kernel that copies, for comparison."""
        raise BackendError(f"{type(self).__name__} cannot time its kernels")

    def close(self) -> None:
        """Free everything. The step cannot be used afterwards; closing it again does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._close()

    # shared by all

    @contextmanager
    def _turn(self, keep_abort: bool = False) -> Iterator[None]:
        """One thread at a time. Raises OptionError for a closed step."""
        with self._lock:
            if self._closed:
                raise OptionError("the model has been closed")
            if not keep_abort:
                self._abort.clear()
            yield

    def _checked(self, batch: Batch) -> Batch:
        units = [size for size, group in zip(self.sizes, self.groups, strict=True) if not group.paged]
        checked = check_batch(batch, self.program.vocab_size, self.limits, units, self._width)
        self._hidden_rows = np.empty(0, np.int32) if checked.hidden is None else checked.hidden
        return checked

    def _stop_if_aborted(self) -> None:
        """For backends, between two pieces of work. Raises Cancelled."""
        if self._abort.is_set():
            raise Cancelled("the run was aborted")

    def _refuse_unknown(self, group: int, ids: np.ndarray) -> None:
        outside = ids[(ids < 0) | (ids >= self.sizes[group])]
        if outside.size:
            raise OptionError(f"page {int(outside[0])} of group {group} does not exist; there are {self.sizes[group]}")
