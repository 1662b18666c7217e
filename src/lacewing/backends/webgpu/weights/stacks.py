"""Some experts of all, exchanged for others between two runs (`offload.cache`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lacewing.backends.gpu import stacks
from lacewing.backends.step import SwapIn
from lacewing.backends.webgpu.device.device import Device, Slice
from lacewing.backends.webgpu.weights.matrices import Matrix, Uploader

ResidentStack = stacks.ResidentStack[Matrix, Slice | None]


def put(device: Device, held: Sequence[ResidentStack], moves: Sequence[SwapIn], begin: Callable[[], None]) -> None:
    """See `backends.step.Step.put_experts`."""

    def write(bias: Slice | None, offset: int, values: np.ndarray) -> None:
        if bias is not None:
            device.write(bias.buffer, offset, values)

    with device.lock:
        stacks.swap_in(Uploader(device), held, moves, begin, write)
