"""The way of weights to the device: pinned memory that the host fills in turns, while the device takes the other half."""

from __future__ import annotations

import numpy as np

from lacewing.backends.cuda.arguments import Packed
from lacewing.backends.cuda.device.device import Device, Function

STAGING_BYTES = 2**26  # of one turn, at most
TURNS = 2


def capacity_for(nbytes: int) -> int:
    """Bytes of a turn for a matrix of so many."""
    return min(STAGING_BYTES, 1 << max(16, (nbytes - 1).bit_length()))


class Staging:
    """`memory`, fill it, `send`; again."""

    def __init__(self, device: Device, capacity: int):
        self._device, self.capacity, self._next = device, capacity, 0
        self._source = device.buffer(capacity, "staged weights")
        try:
            self._turns = [device.pinned(capacity) for _ in range(TURNS)]
        except BaseException:
            device.free(self._source)
            raise

    @property
    def source_bytes(self) -> bytes:
        """The address that kernels read from, as an argument."""
        return np.uint64(self._source.address).tobytes()

    def memory(self) -> np.ndarray:
        """uint8 (capacity,), to be written; valid until `send`. Waits until the device is done with it."""
        return self._turns[self._next].wait(self.capacity)

    def send(self, nbytes: int, function: Function, grid: tuple[int, int, int], packed: Packed) -> None:
        """Hand the first `nbytes` bytes of the memory to the device, then run the kernel on them."""
        turn = self._turns[self._next]
        turn.send(self._source, nbytes)
        turn.mark()
        self._device.launch_all([(function, grid, packed.address, 0)])
        self._next = (self._next + 1) % TURNS

    def close(self) -> None:
        """Waits for the device, then gives everything back."""
        self._device.settle()
        for turn in self._turns:
            turn.close()
        self._device.free(self._source)
