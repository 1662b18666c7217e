"""Where the pages and units of states lie: a reserved mapping for each group, block tables, and their bytes in and out.

A page holds member state after member state, part after part, as `Step.read` gives it, but for the order of the keys within a head
(kernels/attention/stored.py). Pages are zeros until they are written; what is read behind the last position is never used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from lacewing.backends.batch import Batch, StepLimits
from lacewing.backends.cpu.isa import host_isa
from lacewing.backends.cpu.memory import Reservation
from lacewing.errors import OptionError, OutOfMemoryError
from lacewing.program.program import Program
from lacewing.program.states import PAGE, Q8_BLOCK, Q8_BLOCK_BYTES, FixedState, Group, PagedState, Part


@dataclass(frozen=True)
class Pages:
    """How kernels find the parts of a paged state."""

    dtype: str
    heads: int
    latent: bool
    keys: int  # addresses in page 0
    values: int
    page_bytes: int
    table: int
    table_stride: int
    index: int  # as keys: a part that has the same order within a page

    def arguments(self, parts: Sequence[str]) -> dict[str, int]:
        """For kernels that work on these parts; the index takes the place of the keys."""
        keys, values = (at if name in parts else 0 for name, at in (("keys", self.keys), ("values", self.values)))
        keys = self.index if "index" in parts else keys
        return {
            "keys": keys,
            "values": values,
            "page_bytes": self.page_bytes,
            "table": self.table,
            "table_stride": self.table_stride,
        }


class GroupStore:
    """The memory of a group, and for pages a table int32 (rows, pages of a row) with -1 where there is none."""

    def __init__(self, group: Group, limits: StepLimits, share: float):
        self.group = group
        planned = group.planned(limits.context, limits.chunk, limits.rows, limits.positions)
        most = max(limits.rows * group.live(limits.context, limits.chunk), planned)
        self.reserved = Reservation(most * group.nbytes, share)
        self.table = np.full((limits.rows, -(-limits.context // PAGE) if group.paged else 0), -1, np.int32)

    @property
    def capacity(self) -> int:
        return self.reserved.nbytes // self.group.nbytes

    def page(self, index: int) -> np.ndarray:
        """uint8 (bytes of a page or unit,): a view, not a copy."""
        nbytes = self.group.nbytes
        return self.reserved.memory[index * nbytes : (index + 1) * nbytes]

    def parts(self) -> list[Part]:
        """Those of all members, in the order of a page; none of units, whose order is the same inside and outside."""
        state = self.group.state
        return [part for _ in self.group.members for part in state.parts] if isinstance(state, PagedState) else []

    def read(self, index: int) -> np.ndarray:
        page = self.page(index).copy()
        for part, at in self._keys():
            page[at : at + part.page_bytes] = keys_out(page[at : at + part.page_bytes], part)
        return page

    def write(self, index: int, data: np.ndarray) -> None:
        page = self.page(index)
        page[:] = data
        for part, at in self._keys():
            page[at : at + part.page_bytes] = keys_in(data[at : at + part.page_bytes], part)

    def copy(self, source: int, to: int, positions: int) -> None:
        """The first positions of a page, or a whole unit. To write to memory for the first time takes longer than all else."""
        state, pages = self.group.state, [self.page(index).reshape(len(self.group.members), -1) for index in (source, to)]
        if not isinstance(state, PagedState) or positions >= PAGE:
            pages[1][:] = pages[0]
            return
        count, end = -(-positions // host_isa().lanes) * host_isa().lanes, 0  # keys of so many positions stand together
        for part in state.parts:
            begin, end = end, end + part.page_bytes
            heads = [page[:, begin:end].reshape(len(page), part.heads, -1) for page in pages]
            heads[1][..., : count * part.row_bytes] = heads[0][..., : count * part.row_bytes]

    def _keys(self) -> list[tuple[Part, int]]:
        """The keys of all members, those of indices among them, and where they begin in a page."""
        found, at = [], 0
        for part in self.parts():
            if part.name != "values":
                found.append((part, at))
            at += part.page_bytes
        return found


class StateStore:
    """The states of a program. Reserves memory; raises MemoryError."""

    def __init__(self, program: Program, limits: StepLimits):
        groups = program.groups
        self.groups = [GroupStore(group, limits, 1 / len(groups)) for group in groups]
        self.places = {index: (at, member) for at, group in enumerate(groups) for member, index in enumerate(group.members)}
        fixed = [at for at, group in enumerate(groups) if not group.paged]
        self._fixed = {at: number for number, at in enumerate(fixed)}
        self._units = np.full((2, len(fixed), limits.rows), -1, np.int32)  # in, out

    def paged(self, state: int) -> Pages:
        at, member = self.places[state]
        store = self.groups[at]
        kind = store.group.state
        if not isinstance(kind, PagedState):
            raise TypeError(f"state {state} is not paged")
        keys = int(store.reserved.memory.ctypes.data) + member * kind.page_bytes
        sizes = (part.page_bytes for part in kind.parts[:-1])
        begins = dict(zip((part.name for part in kind.parts), accumulate(sizes, initial=keys), strict=True))
        table, stride = int(store.table.ctypes.data), store.table.strides[0]
        dtype, heads, values, index = kind.parts[0].dtype, kind.parts[0].heads, begins.get("values", 0), begins.get("index", 0)
        return Pages(dtype, heads, kind.latent, keys, values, store.group.nbytes, table, stride, index)

    def unit(self, state: int) -> dict[str, int]:
        """The arguments of kernels that read and write a fixed state of one part."""
        at, member = self.places[state]
        store = self.groups[at]
        kind = store.group.state
        if not isinstance(kind, FixedState):
            raise TypeError(f"state {state} is not fixed")
        before, after = (int(self._units[way, self._fixed[at]].ctypes.data) for way in (0, 1))
        first = int(store.reserved.memory.ctypes.data) + member * kind.unit_bytes
        return {"units": first, "unit_bytes": store.group.nbytes, "units_in": before, "units_out": after}

    def begin(self, batch: Batch) -> None:
        """Which units the rows of a run have. Raises OptionError for positions whose page is in no table, and unknown units."""
        for row, first, count in batch.parts:
            for at, store in enumerate(self.groups):
                state = store.group.state
                if isinstance(state, PagedState):
                    low, high = state.first_seen(int(batch.positions[first])), int(batch.positions[first + count - 1])
                    if store.table[row, low // PAGE : high // PAGE + 1].min() < 0:
                        raise OptionError(f"row {row} has no page in group {at} for some of the positions {low} to {high}")
        if batch.units_in is not None and batch.units_out is not None:
            self._units[0], self._units[1] = batch.units_in, batch.units_out

    def grow(self, group: int, before: int, count: int) -> None:
        """Pages from `before` to `count` can be used, or are given back. Raises OutOfMemoryError where the reservation ends."""
        store = self.groups[group]
        if count > store.capacity:
            room = f"{store.reserved.nbytes} bytes of addresses that the system reserved"
            raise OutOfMemoryError(f"{count} pages of {store.group.nbytes} bytes do not fit the {room}; ask for a smaller context")
        if count < before:
            store.reserved.give_back(count * store.group.nbytes, before * store.group.nbytes)


def keys_out(stored: np.ndarray, part: Part) -> np.ndarray:
    """The keys of a page, uint8, from the order of the kernels to (heads, 128, width)."""
    lanes = host_isa().lanes
    if part.dtype != "q8_0":
        size = 2 if part.dtype == "f16" else 4
        values = stored.view(f"u{size}").reshape(part.heads, PAGE // lanes, part.width, lanes)
        return np.ascontiguousarray(values.transpose(0, 1, 3, 2)).view(np.uint8).reshape(-1)
    groups = stored.reshape(part.heads, PAGE // lanes, part.width // Q8_BLOCK, Q8_BLOCK_BYTES * lanes)
    made = np.empty((part.heads, PAGE // lanes, lanes, part.width // Q8_BLOCK, Q8_BLOCK_BYTES), np.uint8)
    made[..., :2] = groups[..., : 2 * lanes].reshape(*groups.shape[:3], lanes, 2).transpose(0, 1, 3, 2, 4)
    made[..., 2:] = groups[..., 2 * lanes :].reshape(*groups.shape[:3], Q8_BLOCK, lanes).transpose(0, 1, 4, 2, 3)
    return made.reshape(-1)


def keys_in(data: np.ndarray, part: Part) -> np.ndarray:
    """The other way."""
    lanes = host_isa().lanes
    if part.dtype != "q8_0":
        size = 2 if part.dtype == "f16" else 4
        values = data.view(f"u{size}").reshape(part.heads, PAGE // lanes, lanes, part.width)
        return np.ascontiguousarray(values.transpose(0, 1, 3, 2)).view(np.uint8).reshape(-1)
    blocks = data.reshape(part.heads, PAGE // lanes, lanes, part.width // Q8_BLOCK, Q8_BLOCK_BYTES)
    made = np.empty((part.heads, PAGE // lanes, part.width // Q8_BLOCK, Q8_BLOCK_BYTES * lanes), np.uint8)
    made[..., : 2 * lanes] = blocks[..., :2].transpose(0, 1, 3, 2, 4).reshape(*made.shape[:3], 2 * lanes)
    made[..., 2 * lanes :] = blocks[..., 2:].transpose(0, 1, 3, 4, 2).reshape(*made.shape[:3], Q8_BLOCK * lanes)
    return made.reshape(-1)
