"""The arguments of kernels: what a launch names, and the bytes that a kernel takes for it."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lacewing.backends.cuda.device.device import Buffer
from lacewing.backends.gpu.arena import Place
from lacewing.backends.gpu.inputs import Inputs
from lacewing.backends.gpu.layouts import Layout
from lacewing.backends.gpu.pages import PageLayout, RowLayout
from lacewing.errors import BackendError


def blocks(count: int, each: int) -> int:
    """Blocks of `each` for so many."""
    return -(-count // each)


@dataclass(frozen=True)
class Pointer:
    """A place in device memory, or None: a null pointer."""

    buffer: Buffer | None
    offset: int = 0  # bytes


NULL = Pointer(None)


@dataclass(frozen=True)
class Store:
    """The pages or units of a state: a pointer to the pointer to them, which moves as they grow."""

    state: int


@dataclass(frozen=True)
class Planes:
    """The planes of a matrix, up to four."""

    buffers: tuple[Buffer, ...]


@dataclass(frozen=True)
class Outs:
    """Where rows of a matrix go, in their order: up to four places with their numbers of rows."""

    places: tuple[Place | Pointer, ...]
    rows: tuple[int, ...]
    stride: int = 0  # of a pointer


@dataclass(frozen=True)
class Struct:
    """Numbers that a kernel takes as one argument: ints and floats of 32 bits."""

    values: tuple[int | float, ...]


@dataclass(frozen=True)
class Joined:
    """Arguments that a kernel takes as one, such as a view and numbers."""

    parts: tuple[Any, ...]


class StepInputs:
    """The inputs of the run."""


class Kept:
    """The pointer to where routers' decisions are kept."""


STEP, KEPT = StepInputs(), Kept()
Argument = Any  # of those above, or int, float, Place, None (a view that is not there)


def pages(layout: PageLayout) -> Struct:
    """18 numbers, as `Pages` of `attention/pages.cuh` has them; a latent state has its values in the rows of keys."""
    values = layout.value_rows
    index = layout.index
    before = layout.keys.page_words if layout.values is not None else 0
    parts: list[int] = [layout.tables, layout.table_width, layout.words]
    parts += _rows(layout.keys, 0)
    parts += _rows(values, before)
    parts += [0] * 5 if index is None else _rows(index, layout.index_words)
    return Struct(tuple(parts))


def _rows(rows: RowLayout, at: int) -> list[int]:
    return [at, rows.heads, rows.width, rows.words, rows.value_words]


@dataclass(frozen=True)
class Addresses:
    """Where the things stand that arguments name."""

    arena: int
    step: int
    stores: int  # a table of pointers, one a state
    kept: int
    inputs: Inputs

    def packed(self, value: Argument) -> bytes:
        """An argument as the kernel takes it."""
        if isinstance(value, int | float):
            return _number(value)
        if isinstance(value, Place):
            return struct.pack("<Qi4x", self.arena + 4 * value.base, value.stride)
        if value is None:
            return struct.pack("<Qi4x", 0, 0)
        if isinstance(value, Pointer):
            return struct.pack("<Q", _address(value))
        if isinstance(value, Store):
            return struct.pack("<Q", self.stores + 8 * value.state)
        if isinstance(value, Kept):
            return struct.pack("<Q", self.kept)
        if isinstance(value, Planes):
            addresses = [buffer.address for buffer in value.buffers]
            return struct.pack("<4Q", *addresses, *[0] * (4 - len(addresses)))
        if isinstance(value, StepInputs):
            i = self.inputs
            words = i.tokens, i.token_rows, i.positions, i.outputs, i.decode, i.parts, i.units_in, i.units_out, i.chosen, i.rows
            return struct.pack("<Q10i", self.step, *words)
        if isinstance(value, Outs):
            return self._outs(value)
        if isinstance(value, Joined):
            return b"".join(map(self.packed, value.parts))
        if isinstance(value, Struct):
            return b"".join(map(_number, value.values))
        raise BackendError(f"no kernel takes a {type(value).__name__}")

    def _outs(self, outs: Outs) -> bytes:
        views = [
            self.packed(place) if isinstance(place, Place) else struct.pack("<Qi4x", _address(place), outs.stride)
            for place in outs.places
        ]
        ends = [sum(outs.rows[: index + 1]) for index in range(len(outs.rows))]
        missing = 4 - len(views)
        return b"".join((*views, b"\0" * 16 * missing, struct.pack("<4i", *ends, *[0] * missing)))


def _number(value: float) -> bytes:
    return struct.pack("<f", value) if isinstance(value, float) else struct.pack("<i", int(value))


def _address(pointer: Pointer) -> int:
    return 0 if pointer.buffer is None else pointer.buffer.address + pointer.offset


class Packed:
    """The arguments of a kernel in memory, and the array of pointers to them that a launch takes."""

    def __init__(self, parts: Sequence[bytes]):
        places, at = [], 0
        for part in parts:
            places.append(at)
            at += -(-len(part) // 8) * 8
        self._values = ctypes.create_string_buffer(max(at, 8))
        start = ctypes.addressof(self._values)
        for place, part in zip(places, parts, strict=True):
            ctypes.memmove(start + place, part, len(part))
        self._pointers = (ctypes.c_void_p * max(len(parts), 1))(*(start + place for place in places))
        self.address = ctypes.addressof(self._pointers)


@dataclass(frozen=True)
class Matrix:
    """Rows of `groups` groups of 32 values; stacked experts are rows one after another."""

    layout: Layout
    rows: int
    columns: int
    groups: int
    buffers: tuple[Buffer, ...]

    @property
    def planes(self) -> Planes:
        return Planes(self.buffers)

    @property
    def quant(self) -> str:
        return self.layout.quant
