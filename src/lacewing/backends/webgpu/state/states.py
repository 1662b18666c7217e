"""The bytes of states on the device: pages of keys and values, and units of constant size. A state has a buffer of its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from lacewing.backends.gpu.pages import canonical, state_bytes, stored
from lacewing.backends.webgpu.device.device import Device
from lacewing.backends.webgpu.device.raw import Recorder
from lacewing.errors import OutOfMemoryError
from lacewing.options import format_bytes
from lacewing.program.program import Program
from lacewing.program.states import PagedState

MOVED_BYTES = 2**25  # of pages that are copied, read or written at a time


class StateBuffer:
    """The pages or units of one state; kernels bind `buffer` whole, and anew after it has grown."""

    def __init__(self, device: Device, label: str, nbytes: int):
        """`nbytes`: of a page or unit."""
        self._device, self.label, self.nbytes = device, label, nbytes
        self.capacity = 0
        self.buffer: Any = device.buffer(0, label)

    @property
    def offset(self) -> int:
        return 0

    @property
    def size(self) -> int:
        return int(self.buffer.size)

    def resize(self, count: int) -> None:
        """Room for exactly `count`, in another buffer, with what is there. Raises OutOfMemoryError."""
        if count == self.capacity:
            return
        if count * self.nbytes > self._device.largest_buffer:
            raise OutOfMemoryError(
                f"{count} pages of {self.label} take {format_bytes(count * self.nbytes)}, but this GPU binds "
                f"{format_bytes(self._device.largest_buffer)}; use a smaller `context`, or `kv_type='q8_0'`"
            )
        made, kept = self._device.buffer(count * self.nbytes, self.label), min(self.capacity, count) * self.nbytes
        if kept:
            recorder = Recorder(self._device.device)
            recorder.copy(self.buffer, 0, made, 0, kept)
            recorder.submit()
        self._device.free(self.buffer)
        self.buffer, self.capacity = made, count


class States:
    """The buffers of all states of a program, addressed by groups."""

    def __init__(self, device: Device, program: Program):
        self._device, self.groups = device, program.groups
        self.buffers: list[StateBuffer] = []
        for index, state in enumerate(program.states):
            what = "KV cache" if isinstance(state, PagedState) else "recurrent state"
            self.buffers.append(StateBuffer(device, f"the {what} of layer {index}", state_bytes(state)))

    def members(self, group: int) -> list[StateBuffer]:
        return [self.buffers[member] for member in self.groups[group].members]

    def grow(self, group: int, count: int) -> None:
        """See `Step.grow`; who asks decides how far ahead. Buffer after buffer, so that only one of them is there twice."""
        before = min(each.capacity for each in self.members(group))
        for index, each in enumerate(self.members(group)):
            try:
                each.resize(count)
            except OutOfMemoryError:
                for grown in self.members(group)[:index]:
                    with suppress(OutOfMemoryError):  # it is larger then, and whole
                        grown.resize(before)
                raise
            finally:
                self._device.settle()  # else the next one would find this one's memory still taken

    def copy(self, group: int, pairs: Sequence[tuple[int, int]]) -> None:
        """See `Step.copy`. A buffer cannot be copied within itself, so pages pass through another one."""
        for state in self.members(group):
            for _, part in _pieces(pairs, state.nbytes):
                passing = self._device.buffer(len(part) * state.nbytes, "pages that are copied")
                try:
                    recorder = Recorder(self._device.device)
                    for place, (source, _) in enumerate(part):
                        recorder.copy(state.buffer, source * state.nbytes, passing, place * state.nbytes, state.nbytes)
                    for place, (_, target) in enumerate(part):
                        recorder.copy(passing, place * state.nbytes, state.buffer, target * state.nbytes, state.nbytes)
                    recorder.submit()
                finally:
                    self._device.free(passing)

    def read(self, group: int, ids: Sequence[int]) -> np.ndarray:
        """See `Step.read`."""
        if not ids:
            return np.empty((0, self.groups[group].nbytes), np.uint8)
        found = [canonical(self.groups[group], self._read(state, ids)) for state in self.members(group)]
        return np.concatenate(found, axis=1)

    def write(self, group: int, ids: Sequence[int], data: np.ndarray) -> None:
        """See `Step.write`."""
        parts = np.split(data, len(self.groups[group].members), axis=1)
        for state, part in zip(self.members(group), parts, strict=True):
            for first, some in _pieces(ids, state.nbytes):
                words_of = stored(self.groups[group], np.ascontiguousarray(part[first : first + len(some)]))
                for page, words in zip(some, words_of, strict=True):
                    self._device.write(state.buffer, page * state.nbytes, words)
                Recorder(self._device.device).submit()
                self._device.wait()  # the staging memory of queued writes must not pile up

    def close(self) -> None:
        for state in self.buffers:
            self._device.free(state.buffer)

    def _read(self, state: StateBuffer, ids: Sequence[int]) -> np.ndarray:
        """uint32 (ids, words of a page), brought together on the device."""
        found = np.empty((len(ids), state.nbytes // 4), np.uint32)
        for first, some in _pieces(ids, state.nbytes):
            together = self._device.buffer(len(some) * state.nbytes, "pages on their way to the host")
            try:
                self._device.write(together, 0, np.zeros(4, np.uint8))  # raises where the device is lost
                recorder = Recorder(self._device.device)
                for place, page in enumerate(some):
                    recorder.copy(state.buffer, page * state.nbytes, together, place * state.nbytes, state.nbytes)
                recorder.submit()
                got = self._device.read(together, 0, len(some) * state.nbytes).view(np.uint32)
                found[first : first + len(some)] = got.reshape(len(some), -1)
            finally:
                self._device.free(together)
        return found


def _pieces(items: Sequence[Any], nbytes: int) -> list[tuple[int, Sequence[Any]]]:
    """So many items at a time as make MOVED_BYTES, with the index of the first."""
    most = max(1, MOVED_BYTES // nbytes)
    return [(first, items[first : first + most]) for first in range(0, len(items), most)]
