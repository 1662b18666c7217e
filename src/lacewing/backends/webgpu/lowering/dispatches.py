"""What a compiled step is made of: dispatches, and which of them a run needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lacewing.backends.batch import Batch
from lacewing.backends.webgpu.device.device import Device, Pipeline, Slice
from lacewing.backends.webgpu.lowering.inputs import PREFILL_TOKENS
from lacewing.backends.webgpu.state.states import StateBuffer
from lacewing.program.ops import View

WIDEST = 65535  # workgroups of a dispatch along an axis


@dataclass(frozen=True)
class Run:
    """What the host knows of a run, and dispatches depend on. `outputs`: rows of logits of this pass.

    `prefill`: tokens of each row whose attention is made in tiles. `single`: every token is of another row. `kv_len`: keys that the
    other tokens may see, rounded up to a power of two, so that few plans exist; `reach`: the same of all tokens.
    """

    tokens: int
    outputs: int
    kv_len: int
    prefill: tuple[int, ...] = ()
    parts: int = 1
    single: bool = False
    reach: int = 0

    @staticmethod
    def of(batch: Batch, outputs: int) -> Run:
        parts = batch.parts
        if len(parts) == len(batch.tokens) == outputs:
            return Run.singly(outputs, int(batch.positions.max()))
        short = [first + count - 1 for _, first, count in parts if count < PREFILL_TOKENS]
        kv_len = 1 << int(batch.positions[short].max()).bit_length() if short else 1
        prefill = tuple(count for _, _, count in parts if count >= PREFILL_TOKENS)
        reach = 1 << int(batch.positions.max()).bit_length()
        return Run(len(batch.tokens), outputs, kv_len, prefill, len(parts), len(parts) == len(batch.tokens), reach)

    @staticmethod
    def singly(rows: int, position: int) -> Run:
        """One token of each of so many rows, the furthest at a position, with its logits."""
        reach = 1 << position.bit_length()
        return Run(rows, rows, reach, (), rows, True, reach)

    @property
    def decode(self) -> int:
        """Tokens whose attention is not made in tiles."""
        return self.tokens - sum(self.prefill)


Grid = tuple[int, int, int]
Binding = Slice | StateBuffer


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
