"""The contract between the engine and a device: compile a program once, run it every step.

A backend takes a `Program` and the `Weights` that it names, and gives a `Step`. The step owns its activations and the
keys and values, which are addressed by (slot, position): to forget a suffix, just write over it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from lacewing.errors import BackendError
from lacewing.options import Progress
from lacewing.program.program import Program
from lacewing.quants.base import Quant


@dataclass(frozen=True)
class TileOrder:
    """Another order of a quantised weight in memory: tile after tile of `rows` rows; in a tile group after group of `columns`
    columns, the last one of what is left; in a group row after row. A weight of experts has whole tiles of each.
    """

    rows: int
    columns: int


class WeightView(Protocol):
    """What a backend sees of a weight (`weights.store.Weight` is one)."""

    name: str
    shape: tuple[int, ...]
    quant: Quant

    @property
    def data(self) -> np.ndarray:
        """uint8 (nbytes,): the blocks, row after row; a view of mapped or owned memory. Valid until the residency changes."""
        ...

    @property
    def parts(self) -> list[np.ndarray]:
        """uint8, one array, or one for each index of the first axis: stacked experts may lie apart in their files."""
        ...

    @property
    def tiled(self) -> np.ndarray | None:
        """uint8 (nbytes,): all blocks in the order that the backend asked for (`PrefersTiles`); None: they are not in memory so.

        `data` and `parts` are then copies.
        """
        ...

    @property
    def scales(self) -> WeightView | None:
        """Factors, one for each block of `scale_block` rows and columns, that the values are multiplied by; None: all 1."""
        ...

    @property
    def scale_block(self) -> tuple[int, int]: ...


@dataclass(frozen=True)
class StepLimits:
    """What a step must be able to hold."""

    context: int  # positions a slot
    chunk: int = 512  # most tokens of one run
    slots: int = 1


@dataclass(frozen=True)
class DeviceFacts:
    """What a person may know about the device that a backend runs on."""

    backend: str
    name: str
    threads: int
    features: tuple[str, ...]
    memory_bytes: int | None  # None: not known
    kind: str = "CPU"  # or "discrete GPU", "integrated GPU", "software", "unknown GPU"
    limits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """A device that a backend could use. `auto`: whether a person who names no backend gets it, and `reason` says why."""

    facts: DeviceFacts
    auto: bool
    reason: str
    index: int | None = None  # what `adapter` takes, for a backend of several devices


class NoDeviceError(BackendError):
    """This machine has nothing that the backend could use, as one would expect of it."""


class Described(Protocol):
    """What is known of a weight before it is read."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def quant(self) -> Quant: ...

    @property
    def scales(self) -> object: ...

    @property
    def scale_block(self) -> tuple[int, int]: ...


@dataclass(frozen=True)
class Demand:
    """A model that is about to be compiled, for a choice of backend that suits it."""

    program: Program
    weights: Mapping[str, Described]
    nbytes: int  # weights, keys and values, activations
    least_nbytes: int | None = None  # of these, what must be on the device for it to be of use; None: all

    @classmethod
    def nothing(cls) -> Demand:
        """For a choice before any model is known."""
        return cls(Program((), {}, (), 0), {}, 0)


@dataclass(frozen=True)
class RoutedLayer:
    """What the router of one layer decided in a run: ids (T, A) int32, probabilities (T, E) float32 before the choice."""

    layer: int
    ids: np.ndarray
    probabilities: np.ndarray


class Step(Protocol):
    """A compiled program with its buffers and its keys and values."""

    limits: StepLimits
    buffer_bytes: int  # activations and scratch
    kv_bytes: int

    def run(self, tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Run the program over T tokens; int32 (T,) each, 1 <= T <= limits.chunk.

        Tokens of one slot come in order of position, and all earlier positions of the slot have been run before or come
        earlier in this call. `outputs` int32 (R,) are the rows of which logits are wanted, R may be 0.
        Returns float32 (R, V), valid until the next run. Raises OptionError for ids, slots or positions out of range.
        """
        ...

    def rebind(self) -> None:
        """Look up all weight addresses again, after the residency changed."""
        ...

    def watch_routes(self, on: bool) -> None:
        """Keep what the routers of a mixture of experts decide; off at first."""
        ...

    def routes(self) -> list[RoutedLayer]:
        """The decisions of the last run, layer by layer, valid until the next; empty where none are kept or made."""
        ...

    def close(self) -> None:
        """Free everything. The step cannot be used afterwards."""
        ...


@runtime_checkable
class KeepsSlots(Protocol):
    """A step whose keys and values can be written to a file and read again, bit for bit, on the same kind of device."""

    def read_slot(self, slot: int, count: int) -> np.ndarray:
        """uint8: keys and values of the first `count` positions."""
        ...

    def write_slot(self, slot: int, count: int, data: np.ndarray) -> None:
        """What `read_slot` gave. Raises OptionError where the size is another."""
        ...


@runtime_checkable
class FeedsBack(Protocol):
    """A step that takes its own likeliest token as the next one, and makes that while the host still reads this one."""

    def greedy(self, token: int, slot: int, position: int, count: int) -> Iterator[int]:
        """Run `token` at `position`, give the id of the largest logit (the lowest of equals), run that, and so on, `count` times.

        The slot may be written one position further than what was given out. A caller that stops early closes the iterator;
        one that runs the step otherwise in between must not go on with it. Raises NumericError for NaN or infinite logits.
        """
        ...


@runtime_checkable
class Adapts(Protocol):
    """A step that suits itself to what it has run, such as where experts are."""

    def adapt(self) -> None:
        """Called between two requests, and after a long prompt; may take a fraction of a second. Raises BackendError."""
        ...


@dataclass(frozen=True)
class Candidates:
    """The largest logits of a row, largest first, the lower id first among equals, and what all of them sum to.

    `ids` int64 (N,), `logits` float32 (N,), `log_sum`: the natural logarithm of the sum of the exponentials of the whole row.
    """

    ids: np.ndarray
    logits: np.ndarray
    log_sum: float


@runtime_checkable
class FindsCandidates(Protocol):
    """A step that can give the largest logits of one token without the whole row."""

    most_candidates: int

    def candidates(self, token: int, slot: int, position: int) -> Candidates:
        """Run `token` at `position`; its `most_candidates` largest logits, or all of a smaller vocabulary.

        Raises NumericError for NaN or infinite logits.
        """
        ...


@dataclass(frozen=True)
class KernelTime:
    """All dispatches of a kernel in a run: how many, their time by the device's own clock, the bytes of weights that they read."""

    name: str
    calls: int
    seconds: float
    nbytes: int


@runtime_checkable
class Profiles(Protocol):
    """A step whose kernels can be timed."""

    def profile(self, tokens: int, position: int) -> tuple[KernelTime, ...]:
        """The kernels of a run of `tokens` from `position` on, the slowest first; keys and values there are written over.

        Of one token with the choice of the next. Raises BackendError for a device without a clock.
        """
        ...

    def copy_rate(self) -> float:
        """Bytes/s, read and written, of a kernel that copies, for comparison."""
        ...


@runtime_checkable
class PrefersTiles(Protocol):
    """A backend that computes faster with eager weights in tile order."""

    def tile_orders(self, program: Program, weights: Mapping[str, Described]) -> dict[str, TileOrder]:
        """Of the weights for which it has kernels that read either order, by name."""
        ...


@runtime_checkable
class HasMemory(Protocol):
    """A backend whose device has memory of its own."""

    def room_bytes(self) -> int | None:
        """What it could still give now; None: not known."""
        ...


class Backend(Protocol):
    """A device and the compiler for it."""

    name: str
    copies_weights: bool  # into memory of its own, so that the host's are read by `compile` only

    def facts(self) -> DeviceFacts: ...

    def compile(
        self, program: Program, weights: Mapping[str, WeightView], limits: StepLimits, progress: Progress | None = None
    ) -> Step:
        """Make a step. Raises BackendError, UnsupportedModelError (an op or quant that this backend lacks), OutOfMemoryError."""
        ...
