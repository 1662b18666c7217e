"""The way of weights to the device: memory of the driver's that the host fills in turns, while the device takes the other half."""

from __future__ import annotations

from typing import Any

import numpy as np
import wgpu

from lacewing.backends.webgpu.device import raw
from lacewing.backends.webgpu.device.device import Device, Slice
from lacewing.backends.webgpu.device.faults import fault

STAGING_BYTES = 2**25  # of one turn, at most
TURNS = 2
_HEADER = 256  # before the data: the job


def capacity_for(nbytes: int) -> int:
    """Bytes of a turn for a matrix of so many."""
    return min(STAGING_BYTES, 1 << max(16, (nbytes - 1).bit_length()))


class Staging:
    """`memory`, fill it, `send`; again. The device's kernels find the data in `source` and four words of theirs in `job`."""

    def __init__(self, device: Device, capacity: int):
        self._device, self.capacity = device, capacity
        self._next, self._mapped = 0, np.empty(0, np.uint8)
        self._sent: list[int | None] = [None] * TURNS
        size, usage = _HEADER + capacity, wgpu.BufferUsage.MAP_WRITE | wgpu.BufferUsage.COPY_SRC
        before = device.buffers
        try:
            turns = [device.buffer(size, "staging memory of weights", usage) for _ in range(TURNS)]
            self.source = self._whole(capacity + 4, "staged weights")  # kernels load whole words, and one behind
            self.job = self._whole(256, "the job of staged weights")
        except BaseException:
            device.free_since(before)
            raise
        self._turns = [raw.Filling(device.device, buffer, size) for buffer in turns]
        for turn in self._turns:
            turn.start(size)

    def _whole(self, size: int, label: str) -> Slice:
        buffer = self._device.buffer(size, label)
        return Slice(buffer, 0, buffer.size)

    def memory(self) -> np.ndarray:
        """uint8 (capacity,), to be written, not read; valid until `send`. Waits until the device is done with it."""
        turn = self._turns[self._next]
        if turn.finish(self._sent[self._next]) != 1:
            raise fault("staged weights", "device lost while weights were brought to it", "", self._device._lose)
        self._mapped = np.frombuffer(turn.bytes(turn.size), np.uint8)
        return self._mapped[_HEADER:]

    def send(self, pipeline: Any, group: Any, job: np.ndarray, nbytes: int, grid: tuple[int, int, int]) -> None:
        """Hand the first `nbytes` bytes of the memory and the job, uint32 (4,), to the device, then run the kernel on them."""
        turn = self._turns[self._next]
        self._mapped[: job.nbytes] = job.view(np.uint8)
        with self._device.guard("staged weights"):
            turn.release()
            recorder = raw.Recorder(self._device.device)
            recorder.copy(turn.buffer, 0, self.job.buffer, 0, job.nbytes)
            recorder.copy(turn.buffer, _HEADER, self.source.buffer, 0, -(-nbytes // 4) * 4)
            recorder.dispatches([(pipeline.handle, group._internal, *grid)])
            self._sent[self._next] = recorder.submit()
            turn.start(turn.size)
        self._next = (self._next + 1) % TURNS

    def close(self) -> None:
        """Waits for the device, then gives everything back."""
        if not self._device.lost:
            self._device.wait()
        for buffer in (*(turn.buffer for turn in self._turns), self.source.buffer, self.job.buffer):
            self._device.free(buffer)
