"""The contract between the engine and a device: compile a program once, run it every step (`backends.step`).

A backend takes a `Program` and the weights that it names, and gives a `Step`, which owns the bytes of activations and states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lacewing.backends.batch import StepLimits
from lacewing.backends.step import Step
from lacewing.backends.weights import TensorSpec, TileOrder, WeightView
from lacewing.errors import BackendError
from lacewing.options import Progress
from lacewing.program.program import Program


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


@dataclass(frozen=True)
class ModelRequirements:
    """A model that is about to be compiled, for a choice of backend that suits it."""

    program: Program
    weights: Mapping[str, TensorSpec]
    nbytes: int  # weights, KV cache, activations
    min_nbytes: int | None = None  # of these, what must be on the device for it to be of use; None: all

    @classmethod
    def nothing(cls) -> ModelRequirements:
        """For a choice before any model is known."""
        return cls(Program((), {}, (), 0), {}, 0)


@dataclass(frozen=True)
class DeviceMemory:
    """What a program takes on a device. `group_bytes`: of one page or unit of each group of states."""

    weight_bytes: int
    group_bytes: tuple[int, ...]
    buffer_bytes: int
    staging_bytes: int = 0
    copied_bytes: int = 0  # of second copies of weights, in another form


def estimate(
    program: Program,
    weights: Mapping[str, TensorSpec],
    limits: StepLimits,
    stored: Callable[[TensorSpec, bool], int] = lambda weight, transposed: weight.nbytes,
) -> DeviceMemory:
    """What a program takes on a device of which nothing else is known than how many bytes are `stored` of a weight.

    Tables that are read by rows take none.
    """
    turned = {name for op in program.ops for name in op.weights_read_across}
    nbytes = sum(stored(weights[name], name in turned) for name in program.weights.keys() - program.tables)
    widths = {view.buffer.name: view.buffer.width for op in program.ops for view in op.views}
    buffers = 6 * limits.chunk * sum(widths.values()) + 4 * program.vocab_size  # floats, and their quantised forms
    return DeviceMemory(nbytes, tuple(group.nbytes for group in program.groups), buffers)


class Backend(ABC):
    """A device and the compiler for it."""

    name: str
    copies_weights: bool  # into memory of its own, so that the host's are read by `compile` only
    streams_experts = False  # its steps run stacks of experts whose weights have `slots`

    @abstractmethod
    def facts(self) -> DeviceFacts: ...

    @abstractmethod
    def compile(
        self, program: Program, weights: Mapping[str, WeightView], limits: StepLimits, progress: Progress | None = None
    ) -> Step:
        """Make a step, which has no pages yet. Raises BackendError, UnsupportedModelError (an op or quant that this backend lacks),
        OutOfMemoryError."""

    def memory(self, program: Program, weights: Mapping[str, TensorSpec], limits: StepLimits) -> DeviceMemory:
        """What `compile` and `grow` will take, told from headers."""
        return estimate(program, weights, limits, self.stored_bytes)

    def run_tokens(self, program: Program) -> int:
        """Tokens of a run where more than usual make a prompt faster, if there is memory for their activations; 0: they do not."""
        return 0

    def room_bytes(self) -> int | None:
        """What a device with memory of its own could still give now; None: it has none, or that is not known."""
        return None

    def stored_bytes(self, weight: TensorSpec, transposed: bool = False) -> int:
        """Of a weight in the form in which the device keeps it."""
        return weight.nbytes

    def holds_some(self, weight: TensorSpec, transposed: bool) -> bool:
        """Whether some experts of a stack can be resident, and swapped by `Step.put_experts`."""
        return False

    def memory_nodes(self) -> tuple[int, ...]:
        """The memory nodes that eager weights are dealt out to; (): the system decides."""
        return ()

    def tile_orders(self, program: Program, weights: Mapping[str, TensorSpec]) -> dict[str, TileOrder]:
        """Of the eager weights that it computes with faster in tile order, and for which it has kernels that read either order."""
        return {}

    def row_tables(self, program: Program, weights: Mapping[str, TensorSpec]) -> frozenset[str]:
        """The matrices of which its steps need no more than the rows of a run's tokens (`WeightView.row_table`), not all in RAM."""
        return frozenset()
