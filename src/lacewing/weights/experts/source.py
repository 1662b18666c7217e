"""Where the experts of a mixture are in the files, and how large the slots must be that hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from lacewing.backends.weights import TensorSpec
from lacewing.formats.checkpoint import ByteRange
from lacewing.program.ops import ExpertLinear, Route
from lacewing.program.program import Program

PAGE = 4096  # bytes that direct reads are aligned to, in the file and in memory
Stacks = tuple[str, ...]  # the names of the weights that an expert of one layer is made of


class SlotCount(NamedTuple):
    """`layer`: slots of each layer; `shared`: slots that the layers use in turn for experts that do not stay; all their bytes."""

    layer: int
    shared: int
    nbytes: int = 0


@dataclass(frozen=True)
class LayerSlots:
    """A mixture that can be streamed: of `experts` experts a token uses `active`; a slot takes `nbytes`, all experts in the file
    `stack_bytes`. `above`: how many experts a GPU holds, which ones changes."""

    stacks: Stacks
    experts: int
    active: int
    nbytes: int
    stack_bytes: int
    above: int = 0

    @property
    def most_slots(self) -> int:
        """More would never be used."""
        return max(self.active, self.experts - self.above)


def slots_within(layers: Sequence[LayerSlots], room: int) -> SlotCount | None:
    """As many slots as `room` bytes hold, the same number in each layer; None: too few for the experts of one token."""
    active, shared, _ = least_slots(layers)
    each, largest = sum(layer.nbytes for layer in layers), max(layer.nbytes for layer in layers)
    count = min(max(layer.most_slots for layer in layers), (room - shared * largest) // each)
    return SlotCount(count, shared, count * each + shared * largest) if count >= active else None


def least_slots(layers: Sequence[LayerSlots]) -> SlotCount:
    """For the experts of one token in each layer; while the next half of the shared slots is filled, the other is computed with."""
    active = max(layer.active for layer in layers)
    shared = max(2, 2 * active)
    nbytes = active * sum(layer.nbytes for layer in layers) + shared * max(layer.nbytes for layer in layers)
    return SlotCount(active, shared, nbytes)


def stacks_of(program: Program) -> list[tuple[Stacks, int]]:
    """The stacked weights of each mixture, in the order of the layers, and how many experts of it a token uses."""
    found: list[tuple[list[str], int]] = []
    for op in program.ops:
        if isinstance(op, Route):
            found.append(([], op.ids.width))
        elif isinstance(op, ExpertLinear) and found:
            found[-1][0].extend(op.weights)
    return [(tuple(names), active) for names, active in found if names]


def padded(nbytes: int) -> int:
    """Bytes that hold a range of a file wherever it begins, when whole pages are read."""
    return (-(-nbytes // PAGE) + 1) * PAGE


def offset_in(part: ByteRange) -> int:
    """Where a range begins in the whole pages that it is read into."""
    return part.offset % PAGE


def pages_of(part: ByteRange) -> int:
    """Bytes of these pages."""
    return -(-(offset_in(part) + part.nbytes) // PAGE) * PAGE


def layer_slots(
    mixtures: Sequence[tuple[Stacks, int]], tensors: Mapping[str, TensorSpec], above: Mapping[str, int] | None = None
) -> list[LayerSlots]:
    """Of mixtures as `stacks_of` tells them. `above`: how many experts of a stack a GPU holds; no stack: none."""
    found = []
    for stacks, active in mixtures:
        experts = tensors[stacks[0]].shape[0]
        stored, held = [tensors[name].nbytes for name in stacks], (above or {}).get(stacks[0], 0)
        found.append(LayerSlots(stacks, experts, active, sum(padded(each // experts) for each in stored), sum(stored), held))
    return found


def ranges_of_experts(ranges: Sequence[ByteRange], experts: int) -> list[ByteRange]:
    """Where each expert of a stack is; a stack has one range, or one for each of its experts."""
    if len(ranges) == experts:
        return list(ranges)
    (whole,) = ranges
    size = whole.nbytes // experts
    return [ByteRange(whole.path, whole.offset + size * expert, size) for expert in range(experts)]


class Stack(Protocol):
    """What must be known of a weight whose experts are streamed."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def ranges(self) -> tuple[ByteRange, ...]: ...


class ExpertReads(NamedTuple):
    """What is read for one expert, each range into the whole pages behind those of the one before, and where in the slot each of
    its stacks begins then, in their order."""

    parts: tuple[ByteRange, ...]
    starts: tuple[int, ...]


class LayerSource(Protocol):
    """Where the experts of one layer are read from: the model's own files, or a pack."""

    @property
    def stacks(self) -> Stacks: ...

    @property
    def experts(self) -> int: ...

    @property
    def slot_bytes(self) -> int:
        """That the pages of any expert take."""
        ...

    @property
    def tiled(self) -> frozenset[str]:
        """The stacks whose rows are in the tile order that the backend asked for."""
        ...

    def reads(self, expert: int) -> ExpertReads: ...

    def rows(self, expert: int, slot: np.ndarray) -> dict[str, np.ndarray]:
        """uint8, row after row: what each stack has of an expert that was read into a slot; views of it where they can be."""
        ...


class FileLayer:
    """The experts of a layer in the model's own files; a `LayerSource`. Ranges that follow each other are read as one."""

    tiled: frozenset[str] = frozenset()

    def __init__(self, stacks: Mapping[str, Stack]):
        self.stacks = tuple(stacks)
        self.experts = next(iter(stacks.values())).shape[0]
        self._ranges = [ranges_of_experts(stack.ranges, self.experts) for stack in stacks.values()]
        self.slot_bytes = sum(padded(max((part.nbytes for part in ranges), default=0)) for ranges in self._ranges)
        self._reads: dict[int, ExpertReads] = {}

    def reads(self, expert: int) -> ExpertReads:
        if (known := self._reads.get(expert)) is None:
            known = self._reads[expert] = self._reads_of(expert)
        return known

    def _reads_of(self, expert: int) -> ExpertReads:
        found = [ranges[expert] for ranges in self._ranges]
        parts: list[ByteRange] = []
        starts, at = [0] * len(found), 0
        for stack in sorted(range(len(found)), key=lambda index: (str(found[index].path), found[index].offset)):
            part = found[stack]
            if parts and part.path == parts[-1].path and 0 <= part.offset - _end(parts[-1]) < PAGE:
                at -= pages_of(parts[-1])
                parts[-1] = ByteRange(part.path, parts[-1].offset, part.offset + part.nbytes - parts[-1].offset)
            else:
                parts.append(part)
            starts[stack] = at + offset_in(parts[-1]) + part.offset - parts[-1].offset
            at += pages_of(parts[-1])
        return ExpertReads(tuple(parts), tuple(starts))

    def rows(self, expert: int, slot: np.ndarray) -> dict[str, np.ndarray]:
        found = zip(self.stacks, self.reads(expert).starts, self._ranges, strict=True)
        return {name: slot[start : start + ranges[expert].nbytes] for name, start, ranges in found}


def _end(part: ByteRange) -> int:
    return part.offset + part.nbytes
