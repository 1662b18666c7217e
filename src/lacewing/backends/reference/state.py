"""What the ops of a step work on: buffers, and the pages and units of states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lacewing.backends.batch import Batch, StepLimits
from lacewing.backends.reference.weights import Weights
from lacewing.backends.step import RoutedLayer
from lacewing.program.operands import View
from lacewing.program.program import Program
from lacewing.program.states import PAGE, Group, PagedState
from lacewing.quants.plain import F16, F32
from lacewing.quants.q8_0 import Q8_0, quantise_q8_0


class State:
    """Buffers are made for each run, (T, width); pages and units stay, in float32.

    `exact`: they are not rounded to the precision of their parts, which is only done where they are read as bytes.
    """

    def __init__(self, program: Program, weights: Weights, limits: StepLimits, exact: bool):
        self.weights, self.exact, self.program = weights, exact, program
        self.groups = program.groups
        self.stores = [self._empty(group, 0) for group in self.groups]
        width = -(-limits.context // PAGE)
        self.tables = [np.full((limits.rows, width), -1, np.int32) for _ in self.groups]
        self.places = {index: (at, member) for at, group in enumerate(self.groups) for member, index in enumerate(group.members)}
        fixed = [at for at, group in enumerate(self.groups) if not group.paged]
        self.fixed = {at: number for number, at in enumerate(fixed)}
        self.logits = np.empty((0, program.vocab_size), np.float32)
        self.watched: list[RoutedLayer] | None = None  # what routers decided, where somebody asked for it

    def begin(self, batch: Batch) -> None:
        if self.watched is not None:
            self.watched = []
        self.batch = batch
        self.tokens, self.rows, self.outputs = batch.tokens, batch.rows, batch.outputs
        self.positions = batch.positions.astype(np.int64)  # lengths of windows, chunks and steps may exceed int32
        self.buffers: dict[str, np.ndarray] = {}

    def view(self, view: View) -> np.ndarray:
        """The columns of a view, (T, width); writing to it writes the buffer."""
        buffer = self.buffers.get(view.buffer.name)
        if buffer is None:
            # NaN: whatever is read before it is written shows in the logits
            buffer = self.buffers[view.buffer.name] = np.full((len(self.tokens), view.buffer.width), np.nan, np.float32)
        return buffer[:, view.start : view.start + view.width]

    # paged states

    def store(self, state: int, part: int, values: np.ndarray) -> None:
        """Write (T, heads, width) at the rows and positions of the run's tokens."""
        group, member = self.places[state]
        paged = self.groups[group].state
        pages = self.tables[group][self.rows, self.positions // PAGE]
        if isinstance(paged, PagedState) and not self.exact:
            dtype = paged.parts[part].dtype
            values = _decode(_encode(values, dtype), dtype)
        self.stores[group][member][part][pages, :, self.positions % PAGE] = values

    def load(self, state: int, part: int, row: int, first: int, end: int) -> np.ndarray:
        """What stands at positions `first` to `end` of a row, (end - first, heads, width)."""
        group, member = self.places[state]
        positions = np.arange(first, end)
        pages = self.tables[group][row, positions // PAGE]
        return np.asarray(self.stores[group][member][part][pages, :, positions % PAGE])

    # fixed states

    def unit(self, state: int, part: int, row: int) -> np.ndarray:
        """A copy of what a row remembers before the run; zeros before its first position."""
        group, member = self.places[state]
        store = self.stores[group][member][part]
        unit = -1 if self.batch.units_in is None else int(self.batch.units_in[self.fixed[group], row])
        return np.zeros(store.shape[1:], np.float32) if unit < 0 else store[unit].copy()

    def put_unit(self, state: int, part: int, row: int, values: np.ndarray) -> None:
        group, member = self.places[state]
        if self.batch.units_out is not None:
            self.stores[group][member][part][self.batch.units_out[self.fixed[group], row]] = values

    # bytes

    def grow(self, group: int, count: int) -> None:
        """NaN in what is new: a page that is read before it is written shows."""
        fresh = self._empty(self.groups[group], count)
        for member, parts in enumerate(self.stores[group]):
            for part, old in enumerate(parts):
                kept = min(count, len(old))
                fresh[member][part][:kept] = old[:kept]
        self.stores[group] = fresh

    @staticmethod
    def _empty(group: Group, count: int) -> list[list[np.ndarray]]:
        """Of each member each part: (pages, heads, 128, width), or (units, *shape)."""
        state = group.state
        if isinstance(state, PagedState):
            shapes: list[tuple[int, ...]] = [(count, part.heads, PAGE, part.width) for part in state.parts]
        else:
            shapes = [(count, *shape) for _, shape in state.parts]
        return [[np.full(shape, np.nan, np.float32) for shape in shapes] for _ in group.members]

    def read(self, group: int, ids: Sequence[int]) -> np.ndarray:
        found = [
            _encode(store[list(ids)], dtype).reshape(len(ids), -1)
            for parts in self.stores[group]
            for store, dtype in zip(parts, _dtypes(self.groups[group]), strict=True)
        ]
        return np.concatenate(found, axis=1) if found else np.empty((len(ids), 0), np.uint8)

    def write(self, group: int, ids: Sequence[int], data: np.ndarray) -> None:
        at = 0
        for parts in self.stores[group]:
            for store, dtype in zip(parts, _dtypes(self.groups[group]), strict=True):
                nbytes = _encode(store[:1], dtype).size if len(store) else 0
                store[list(ids)] = _decode(data[:, at : at + nbytes], dtype).reshape(len(ids), *store.shape[1:])
                at += nbytes


def _dtypes(group: Group) -> list[str]:
    state = group.state
    return [part.dtype for part in state.parts] if isinstance(state, PagedState) else ["f32"] * len(state.parts)


def _encode(values: np.ndarray, dtype: str) -> np.ndarray:
    """uint8 (..., bytes of a row)."""
    if dtype == "q8_0":
        return quantise_q8_0(values)
    with np.errstate(over="ignore"):
        plain = np.ascontiguousarray(values, np.float16 if dtype == "f16" else np.float32)
    return plain.view(np.uint8)


def _decode(data: np.ndarray, dtype: str) -> np.ndarray:
    quant = {"f16": F16, "f32": F32, "q8_0": Q8_0}[dtype]
    return quant.dequantise(np.ascontiguousarray(data))
