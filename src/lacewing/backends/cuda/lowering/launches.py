"""What a compiled step is made of: launches of kernels, and which of them a run needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from lacewing.backends.cuda.arguments import NULL, Argument, Joined, Packed, Pointer, Struct
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


DECODE_TOKENS = 16  # up to which the weights' way from memory is all that counts in a product
WIDE_FOURS, WIDE_THREADS = (1, 2, 4, 8, 16), 512  # fours of a thread, and threads, of kernels that keep a row in registers


def fours(width: int) -> int:
    """Fours that a thread of such a kernel keeps of a row, at most."""
    return next((each for each in WIDE_FOURS if 4 * each * WIDE_THREADS >= width), WIDE_FOURS[-1])


NEVER = 2**31 - 1  # tokens from which a launch makes forms that can make none


@dataclass
class Forms:
    """The forms of its result that a launch makes for products, as `forms.cuh` has them; of none at first.

    `view`: its result. `fewest`: tokens from which the launch is there at all; in runs of fewer something else makes the result.
    `prompts`: also in runs with prompts; without it another kernel makes the prompts' part of the result.
    """

    view: View
    fewest: int = 1
    codes: Pointer = NULL
    byte_scales: Pointer = NULL
    many_codes: Pointer = NULL
    many_byte_scales: Pointer = NULL
    halves: Pointer = NULL
    half_scales: Pointer = NULL
    atoms: int = 0
    bytes_most: int = 0  # tokens up to which there are bytes
    bytes_first: int = 0  # tokens from which there are bytes of many; 0: none
    few_first: int = 0  # tokens from which, up to DECODE_TOKENS, there is float16; 0: none
    many: int = 0  # of more: 0 none, 1 row after row, 2 tiled
    prompts: bool = True

    def joined(self) -> Joined:
        """As the kernel takes it."""
        numbers = Struct((self.atoms, 0, self.bytes_most, self.bytes_first, self.few_first, DECODE_TOKENS, self.many, 0))
        pointers = self.codes, self.byte_scales, self.many_codes, self.many_byte_scales, self.halves, self.half_scales
        return Joined((*pointers, numbers))


@dataclass(eq=False)
class Waiting:
    """A launch whose arguments have no addresses yet."""

    kernel: str
    macros: dict[str, object]
    arguments: list[Argument]
    grid: Callable[[Run], Grid | None]
    label: str
    shared: int
    nbytes: int = 0
    op: int = 0  # the index of the one that it is of
    forms: Forms | None = None  # the kernel's last argument
