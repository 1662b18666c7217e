"""The bytes of states on the device: pages of the KV cache, and units of constant size. A state has a buffer of its own.

Kernels find the buffers through a table of pointers on the device, so that nothing else changes when one grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from lacewing.backends.cuda.device.device import Buffer, Device
from lacewing.backends.gpu.pages import canonical, state_bytes, stored
from lacewing.errors import OutOfMemoryError
from lacewing.program.program import Program
from lacewing.program.states import PagedState


class States:
    """The buffers of all states of a program, addressed by groups."""

    def __init__(self, device: Device, program: Program):
        self._device, self.groups = device, program.groups
        self._nbytes = [state_bytes(state) for state in program.states]  # of a page or unit
        self._what = ["KV cache" if isinstance(state, PagedState) else "recurrent state" for state in program.states]
        self._capacity = [0] * len(program.states)
        self.table = device.buffer(8 * max(1, len(program.states)), "the table of states")
        self._buffers: list[Buffer] = []
        for index in range(len(program.states)):
            self._buffers.append(device.buffer(0, self._label(index)))
            self._point(index)

    def _label(self, state: int) -> str:
        return f"the {self._what[state]} of layer {state}"

    def _point(self, state: int) -> None:
        """Behind all that was launched, which still reads the buffer of before."""
        self._device.write(self.table, 8 * state, np.array([self._buffers[state].address], np.uint64))

    def grow(self, group: int, count: int) -> None:
        """To `count` pages or units, the new ones zeros; see `Step.grow`. Buffer by buffer, so that only one is there twice.

        Raises OutOfMemoryError; nothing was changed then, but for buffers that cannot be made smaller again.
        """
        members = self.groups[group].members
        before = [self._capacity[member] for member in members]
        for index, member in enumerate(members):
            try:
                self._resize(member, count)
            except OutOfMemoryError:
                for grown, capacity in zip(members[:index], before, strict=False):
                    with suppress(OutOfMemoryError):  # it is larger then, and whole
                        self._resize(grown, capacity)
                raise

    def _resize(self, state: int, count: int) -> None:
        if count == self._capacity[state]:
            return
        nbytes, old = self._nbytes[state], self._buffers[state]
        made = self._device.buffer(count * nbytes, self._label(state))
        if kept := min(self._capacity[state], count) * nbytes:
            self._device.copy(old, 0, made, 0, kept)
        self._device.clear(made, kept)  # what another program left there is nobody's business
        self._buffers[state], self._capacity[state] = made, count
        self._point(state)
        self._device.wait()
        self._device.free(old)

    def copy(self, group: int, pairs: Sequence[tuple[int, int]]) -> None:
        """See `Step.copy`; no page is in two pairs, so their order does not matter."""
        self._device.enter()
        for state in self.groups[group].members:
            buffer, nbytes = self._buffers[state], self._nbytes[state]
            for source, target in pairs:
                self._device.copy(buffer, source * nbytes, buffer, target * nbytes, nbytes)

    def read(self, group: int, ids: Sequence[int]) -> np.ndarray:
        """uint8 (ids, bytes of a page or unit), the same on every backend; see `Step.read`."""
        its = self.groups[group]
        if not len(ids):
            return np.empty((0, its.nbytes), np.uint8)
        found = []
        for state in its.members:
            nbytes = self._nbytes[state]
            pages = [self._device.read(self._buffers[state], page * nbytes, nbytes) for page in ids]
            found.append(canonical(its, np.stack(pages).view(np.uint32)))
        return np.concatenate(found, axis=1)

    def write(self, group: int, ids: Sequence[int], data: np.ndarray) -> None:
        """`data`: as `read` gives it."""
        its = self.groups[group]
        for state, part in zip(its.members, np.split(data, len(its.members), axis=1), strict=True):
            words = stored(its, np.ascontiguousarray(part))
            for page, row in zip(ids, words, strict=True):
                self._device.write(self._buffers[state], page * self._nbytes[state], row)

    def close(self) -> None:
        for buffer in (*self._buffers, self.table):
            self._device.free(buffer)
