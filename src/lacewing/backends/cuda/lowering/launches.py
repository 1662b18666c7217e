"""What a compiled step is made of: launches of kernels, and which of them a run needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from lacewing.backends.cuda.arguments import Argument, Packed
from lacewing.backends.cuda.device.device import Function
from lacewing.backends.gpu.run import Run
from lacewing.program.ops import View


class Grid(NamedTuple):
    """Blocks of a launch."""

    x: int
    y: int = 1
    z: int = 1


@dataclass
class Launch:
    """A kernel with its arguments; `grid` gives the blocks of a run, None where the run does not need it."""

    label: str
    function: Function
    arguments: Packed
    grid: Callable[[Run], Grid | None]
    shared: int = 0
    nbytes: int = 0  # of weights that it reads

    def planned(self, grid: Grid) -> Planned:
        return self.function, (grid.x, grid.y, grid.z), self.arguments.address, self.shared


Planned = tuple[Function, tuple[int, int, int], int, int]
Plan = list[Planned]


@dataclass(frozen=True)
class Router:
    """What a router decides of a token: `active` ids, then `experts` probabilities, from word `first` on."""

    layer: int
    experts: int
    active: int
    first: int

    @property
    def words(self) -> int:
        return self.active + self.experts


@dataclass
class Stage:
    """Of a part of a split program: its first launch, and what comes from and goes to other devices."""

    first: int
    received: tuple[View, ...]
    sent: tuple[View, ...] = ()


@dataclass
class Waiting:
    """A launch whose arguments have no addresses yet."""

    kernel: str
    macros: dict[str, object]
    arguments: list[Argument]
    grid: Callable[[Run], Grid | None]
    label: str
    shared: int
    nbytes: int = 0
