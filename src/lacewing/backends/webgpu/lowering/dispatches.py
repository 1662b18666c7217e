"""What a compiled step is made of: dispatches, and which of them a run needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lacewing.backends.webgpu.device.device import Slice
from lacewing.program.ops import View

WIDEST = 65535  # workgroups of a dispatch along an axis


@dataclass(frozen=True)
class Run:
    """What the host knows of a run, and dispatches depend on.

    `contiguous`: all tokens are of one slot, at consecutive positions. `kv_len`: keys that the last of them may see, rounded up to
    a power of two, so that few plans exist.
    """

    tokens: int
    rows: int
    contiguous: bool
    kv_len: int


Grid = tuple[int, int, int]


@dataclass(frozen=True)
class Dispatch:
    """A kernel with its bind group; `grid` gives the workgroups of a run, None where the run does not need it."""

    label: str
    pipeline: Any  # raw handle
    group: Any  # raw handle
    owner: Any  # keeps the handles alive: the Pipeline and the bind group
    bindings: tuple[Slice, ...]  # besides activations and inputs
    grid: Callable[[Run], Grid | None]


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
