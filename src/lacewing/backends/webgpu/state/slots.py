"""Keys and values of a slot, off and onto the device; the bytes are those that the CPU backend has (`backends.cpu.state`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lacewing.backends.base import StepLimits
from lacewing.backends.webgpu.device.device import Device, Slice
from lacewing.backends.webgpu.device.raw import Recorder
from lacewing.backends.webgpu.state.layout import CHUNK, stored
from lacewing.errors import OptionError
from lacewing.program.program import Program


class Slots:
    """The stores of all layers, looked at slot by slot."""

    def __init__(self, device: Device, program: Program, limits: StepLimits, stores: Sequence[Slice]):
        self._device, self._program, self._limits, self._stores = device, program, limits, stores

    def read(self, slot: int, count: int) -> np.ndarray:
        """uint8 (count * bytes of a position): layer after layer keys, then values, each (K, count, C)."""
        out, at = np.empty(self._bytes(slot, count), np.uint8), 0
        for store, first, heads, row_bytes, width_bytes in self._parts(slot):
            rows = self._copied(store, first, heads, count * row_bytes, self._limits.context * row_bytes)
            rows = rows.reshape(heads * count, row_bytes)[:, :width_bytes]
            out[at : at + rows.size] = rows.reshape(-1)
            at += rows.size
        return out

    def write(self, slot: int, count: int, data: np.ndarray) -> None:
        """Put back what `read` gave. Raises OptionError where the size is another."""
        nbytes = self._bytes(slot, count)
        if data.dtype != np.uint8 or data.size != nbytes:
            raise OptionError(f"keys and values of {count} positions take {nbytes} bytes, not {data.nbytes}")
        at = 0
        for store, first, heads, row_bytes, width_bytes in self._parts(slot):
            taken = heads * count * width_bytes
            rows = np.zeros((heads, count, row_bytes), np.uint8)
            rows[:, :, :width_bytes] = data[at : at + taken].reshape(heads, count, width_bytes)
            for head in range(heads if count else 0):
                self._device.write(store.buffer, first + head * self._limits.context * row_bytes, rows[head])
            Recorder(self._device.device).submit()
            self._device.wait()  # the staging memory of queued writes must not pile up
            at += taken

    def _bytes(self, slot: int, count: int) -> int:
        if not 0 <= slot < self._limits.slots:
            raise OptionError(f"slot {slot} is out of range; there are {self._limits.slots}")
        if not 0 <= count <= self._limits.context:
            raise OptionError(f"{count} positions do not fit a slot of {self._limits.context}")
        return count * self._program.kv_bytes_per_token

    def _parts(self, slot: int) -> Iterator[tuple[Slice, int, int, int, int]]:
        """Of keys, then values of each layer: store, where the slot begins, heads, bytes of a row and of its values."""
        for layer, store in enumerate(self._stores):
            kv = stored(self._program, self._limits, layer)
            parts = [(0, kv.key_chunks, kv.key_width)]
            if not kv.values_in_keys:
                parts.append((4 * kv.values_from, kv.value_chunks, kv.value_width))
            for start, chunks, width in parts:
                row_bytes = chunks * CHUNK * kv.itemsize
                first = start + slot * kv.key_heads * self._limits.context * row_bytes
                yield store, first, kv.key_heads, row_bytes, width * kv.itemsize

    def _copied(self, store: Slice, first: int, heads: int, nbytes: int, stride: int) -> np.ndarray:
        """uint8 (heads * nbytes): `nbytes` of each head, brought together on the device."""
        if nbytes == 0:
            return np.empty(0, np.uint8)
        together = self._device.buffer(heads * nbytes, "keys and values on their way to the host")
        try:
            self._device.write(together, 0, np.zeros(4, np.uint8))  # raises where the device is lost
            recorder = Recorder(self._device.device)
            for head in range(heads):
                recorder.copy(store.buffer, first + head * stride, together, head * nbytes, nbytes)
            recorder.submit()
            return self._device.read(together, 0, heads * nbytes)
        finally:
            self._device.free(together)
