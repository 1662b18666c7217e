"""What a compiled step is made of: dispatches, and which of them a run needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lacewing.backends.gpu.run import Run
from lacewing.backends.webgpu.device.device import Device, Pipeline, Slice
from lacewing.backends.webgpu.state.states import StateBuffer
from lacewing.program.ops import View

WIDEST = 65535  # workgroups of a dispatch along an axis


Grid = tuple[int, int, int]
Binding = Slice | StateBuffer


class Tile(NamedTuple):
    """A GEMM: its kernel, rows and tokens of a workgroup, above which tokens and up to which, and constants of its own."""

    kernel: str
    size: tuple[int, int]
    tokens: tuple[int, int]
    constants: dict[str, object]


@dataclass
class Dispatch:
    """A kernel with its bind group; `grid` gives the workgroups of a run, None where the run does not need it."""

    label: str
    pipeline: Pipeline
    shared: tuple[Slice, Slice]  # activations and inputs
    bindings: tuple[Binding, ...]
    grid: Callable[[Run], Grid | None]
    _owner: Any = None  # keeps the raw handle alive

    def bind(self, device: Device) -> None:
        """Show the kernel its buffers as they are now."""
        self._owner = device.bind(self.pipeline, [*self.shared, *self.bindings])

    def recorded(self, grid: Grid) -> tuple[Any, Any, int, int, int]:
        return self.pipeline.handle, self._owner._internal, *grid


@dataclass(frozen=True)
class Router:
    """A router's dispatch: which of all, and what its kernel is made of, to make it again with a place for its decisions."""

    layer: int
    experts: int
    active: int
    index: int
    constants: Mapping[str, object]
    bindings: Sequence[Slice]

    @property
    def words(self) -> int:
        """Of a token: ids, then probabilities."""
        return self.active + self.experts


@dataclass
class Stage:
    """Of a part of a split program: its first dispatch, and what comes from and goes to other devices."""

    first: int
    received: tuple[View, ...]
    sent: tuple[View, ...] = ()


def folded(count: int) -> tuple[int, int]:
    """Workgroups in x and z for a count that may be too large for one axis; kernels count `x + z * 65535`."""
    return (count, 1) if count <= WIDEST else (WIDEST, -(-count // WIDEST))
