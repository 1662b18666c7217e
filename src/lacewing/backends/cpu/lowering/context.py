"""What lowering rules share: lowered ops, the memory that their arguments point into, and the table of the rules themselves."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lacewing.backends.batch import StepLimits
from lacewing.backends.cpu.arguments import ANGLES, GATED, QUANTISE
from lacewing.backends.cpu.memory import Memory, aligned
from lacewing.backends.cpu.rows import GatheredRows
from lacewing.backends.cpu.state import Pages, StateStore
from lacewing.backends.registry import Rules
from lacewing.backends.weights import WeightView
from lacewing.program.ops import Hadamard, Norm, Op, Rope, RopeSpec, View
from lacewing.program.program import Program

Argument = int | Callable[[], int]  # a value, or where to find it when weights have moved
Rule = Callable[["Lowering", Any, tuple[Op, ...]], None]  # of an op, and the ops behind it
RULES: Rules[Rule] = Rules("CPU")


def value_of(argument: Argument) -> int:
    """An argument as it is now."""
    return argument() if callable(argument) else argument


def float_argument(value: float) -> int:
    """A float32 in the low half of a word."""
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def double_argument(value: float) -> int:
    return int(struct.unpack("<q", struct.pack("<d", value))[0])


class LoweredOp:
    """A kernel with its arguments, by the names of its layout (arguments.py); those not given are 0.

    With `barrier`, all earlier ops must be done before it. An argument named `counter` is filled in by the step.
    """

    def __init__(self, kernel: str, layout: Any, **arguments: Argument):
        self.kernel, self.layout, self.barrier = kernel, layout, True
        self.arguments: dict[str, Argument] = dict.fromkeys(layout._fields, 0)
        self.set(**arguments)

    def set(self, **arguments: Argument) -> None:
        """Give arguments other values."""
        if unknown := arguments.keys() - self.arguments.keys():
            raise KeyError(f"{self.kernel} has no arguments {', '.join(unknown)}")
        self.arguments.update(arguments)

    def write(self, to: np.ndarray, everything: bool) -> None:
        """Put the arguments into int64 memory: all, or those that weights have moved."""
        for name, argument in self.arguments.items():
            if everything or callable(argument):
                to[getattr(self.layout, name) // 8] = value_of(argument)


@dataclass
class HeadJob:
    """What happens to the heads of a view before attention. pages: where they are stored, as `parts` ("keys", "values")."""

    view: View
    heads: int
    norm: Norm | None = None
    rope: Rope | None = None
    hadamard: Hadamard | None = None
    pages: Pages | None = None
    parts: tuple[str, ...] = ()


@dataclass
class WatchedRouter:
    """Where a router leaves its decisions while somebody watches; empty arrays: nobody does."""

    layer: int
    ids: np.ndarray
    probabilities: np.ndarray
    active: int
    experts: int

    def watch(self, on: bool, chunk: int) -> None:
        self.ids = np.zeros((chunk, self.active) if on else 0, np.int32)
        self.probabilities = np.zeros((chunk, self.experts) if on else 0, np.float32)

    def ids_address(self) -> int:
        return int(self.ids.ctypes.data) if self.ids.size else 0

    def probabilities_address(self) -> int:
        return int(self.probabilities.ctypes.data) if self.ids.size else 0


@dataclass
class Stage:
    """Begins behind the lowered op `after`; None: with the first. Ops that are put before all others belong to the first stage."""

    after: LoweredOp | None
    received: tuple[View, ...]
    sent: tuple[View, ...] = ()


@dataclass
class ExpertChain:
    """The linears of the experts that the pairs of one `group` op are about, from the op behind it to `last`. They may be run again
    for other experts: what was computed for the others before stays as it is."""

    group: LoweredOp
    area: str  # of the memory that `group` writes to
    experts: int
    names: list[str] = field(default_factory=list)  # of the stacks
    last: LoweredOp | None = None


@dataclass
class Guess:
    """Ops that say, when a run has stopped at a chain, which experts the next one is likely to choose: `ids` of the last one."""

    chain: ExpertChain
    following: ExpertChain
    first: LoweredOp
    last: LoweredOp
    ids: View


class Lowering:
    """What is known while a program is lowered. `ops`: the result; `extra`: names of kernels that other kernels call."""

    def __init__(
        self, program: Program, weights: Mapping[str, WeightView], limits: StepLimits, store: StateStore, threads: int = 1
    ):
        self.program, self.weights, self.limits, self.threads = program, weights, limits, threads
        self.memory = Memory(limits.chunk)
        self.ops: list[LoweredOp] = []
        self.extra: set[str] = set()
        self.heads: dict[View, HeadJob] = {}  # collected, not yet emitted
        self.fusable: dict[View, LoweredOp] = {}  # who could quantise a view
        self.quantised: dict[tuple[View, int], int] = {}  # views (in so many parts) whose bytes are up to date, and where
        self.store = store
        self.addresses: dict[str, int] = {}  # of kernels; filled when they are loaded
        self.angle_tables: dict[RopeSpec, int] = {}
        self.routers: list[WatchedRouter] = []
        self.stages: list[Stage] = []  # none: the program is not a part of one
        self.head_groups: set[int] = set()  # addresses of what `route.all_heads` makes
        self.sorted: dict[View, ExpertChain] = {}  # ids whose pairs are sorted by expert
        self.of_pairs: dict[View, dict[str, int]] = {}  # views with a part for each pair, and by what words kernels find the pairs
        self.chains: list[ExpertChain] = []
        self.guesses: list[Guess] = []  # their ops come behind all others, from `program_ops` on
        self.program_ops = 0
        self.gathered: list[GatheredRows] = []
        self.expert_tables: dict[str, list[tuple[int, np.ndarray]]] = {}  # of a stack: bytes skipped, if any, and the addresses

    # ---- emitting ----

    def emit(self, op: LoweredOp, *written: View) -> LoweredOp:
        """Add an op; what was known of the buffers that it writes is forgotten."""
        self.ops.append(op)
        self.forget(written)
        return op

    def forget(self, written: tuple[View, ...]) -> None:
        buffers = {view.buffer for view in written}
        self.fusable = {view: by for view, by in self.fusable.items() if view.buffer not in buffers}
        self.quantised = {key: at for key, at in self.quantised.items() if key[0].buffer not in buffers}
        self.of_pairs = {view: words for view, words in self.of_pairs.items() if view.buffer not in buffers}

    def may_quantise(self, made: LoweredOp, out: View, piece: int) -> None:
        """`made` writes `out` in pieces of so many columns; if they are whole blocks of 32 it can quantise them as well."""
        if piece % 32 == 0:
            self.fusable[out] = made

    # ---- operands ----

    def at(self, view: View) -> int:
        return self.memory.address(view)

    def stride(self, view: View) -> int:
        return self.memory.stride(view.buffer)

    def vector(self, name: str, offset: float = 0.0) -> int:
        """See Memory.vector."""
        return self.memory.vector(self.weights, name, offset)

    def kernel(self, name: str) -> Argument:
        self.extra.add(name)
        return lambda: self.addresses[name]

    def bytes_stride(self, width: int) -> int:
        return (width * 15 // 8 + 63) // 64 * 64

    def offsets(self, stride: int) -> int:
        """Address of where the rows of a step's tokens begin, int64, for rows `stride` bytes apart."""
        name = f"offsets {stride}"
        if name not in self.memory.kept:
            self.memory.kept[name] = aligned(8 * self.limits.chunk, np.int64)
            self.memory.kept[name][:] = stride * np.arange(self.limits.chunk)
        return int(self.memory.kept[name].ctypes.data)

    def bytes_of(self, view: View, parts: int = 1) -> int:
        """Address of the quantised form of a view, each of its `parts` a row of its own; made by the op that made the view, or
        by an op of its own."""
        if (view, parts) in self.quantised:
            return self.quantised[view, parts]
        width = view.width // parts
        stride = self.bytes_stride(width)
        area = f"{view.buffer.name}[{view.start}:{view.start + view.width}] bytes of {parts}"
        to = self.memory.area(area, self.limits.chunk * parts * stride)
        maker, words = self.fusable.get(view), self.of_pairs.get(view)
        if words is None or words["parts"] != parts:  # rows are of other parts than pairs
            words = {"groups": 0, "parts": parts}
        if maker is not None and not maker.arguments["bytes"] and (parts == 1 or maker.layout is GATED):
            maker.set(bytes=to, bytes_stride=stride)
            if maker.layout is GATED:
                maker.set(**words)
        else:
            made = self.quantise_op(view, to, stride, outputs=0)
            made.set(width=width, **words)
            self.ops.append(made)
        self.quantised[view, parts] = to
        return to

    def quantise_op(self, x: View, to: int, to_stride: int, outputs: int) -> LoweredOp:
        return LoweredOp(
            "quants.activations.quantise_rows", QUANTISE, x=self.at(x), x_stride=self.stride(x), width=x.width, to=to,
            to_stride=to_stride, outputs=outputs, parts=1,
        )  # fmt: skip

    def angles(self, rope: RopeSpec) -> int:
        """The cos and sin table of a rotation, made once a step."""
        if rope not in self.angle_tables:
            pairs = len(rope.frequencies)
            frequencies = aligned(8 * pairs, np.float64)
            frequencies[:] = rope.frequencies
            self.memory.kept[f"frequencies {len(self.angle_tables)}"] = frequencies
            table = self.memory.area(f"angles {len(self.angle_tables)}", self.limits.chunk * 8 * pairs)
            magnitude, address = double_argument(rope.magnitude), int(frequencies.ctypes.data)
            made = LoweredOp("attention.heads.angles", ANGLES, frequencies=address, pairs=pairs, magnitude=magnitude, out=table)
            made.barrier = False
            self.ops.insert(0, made)
            self.angle_tables[rope] = table
        return self.angle_tables[rope]
