"""Stacked experts: of several weights as one; some experts of all, exchanged for others between two runs (`offload.cache`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lacewing.backends.gpu.conversion import stored_bytes
from lacewing.backends.gpu.stacks import joined
from lacewing.backends.step import SwapIn
from lacewing.backends.webgpu.device.device import Device, Slice
from lacewing.backends.webgpu.weights.matrices import Matrix, Uploader
from lacewing.backends.weights import WeightView
from lacewing.errors import BackendError


@dataclass(frozen=True)
class HeldStack:
    """The experts of `weights`, as one matrix; `bias` float32 (places, rows of all weights), zeros where a weight has none."""

    weights: tuple[str, ...]
    biases: tuple[str | None, ...]
    rows: tuple[int, ...]  # of an expert, of each weight
    matrix: Matrix
    bias: Slice | None
    transposed: bool

    @property
    def expert_bytes(self) -> int:
        """On its way to the device."""
        return sum(self.rows) * stored_bytes(self.matrix.layout.quant, self.matrix.columns)


def put(device: Device, stacks: Sequence[HeldStack], moves: Sequence[SwapIn], begin: Callable[[], None]) -> None:
    """See `backends.step.Step.put_experts`."""
    with device.lock:
        uploader = Uploader(device)
        try:
            uploader.reserve(max(stack.expert_bytes for stack in stacks))
            begin()
            for move in moves:
                for stack in stacks:
                    if stack.weights[0] in move.weights:
                        _put(device, uploader, stack, move)
        finally:
            uploader.close()


def _put(device: Device, uploader: Uploader, stack: HeldStack, move: SwapIn) -> None:
    weight = joined([move.weights[name] for name in stack.weights])
    if weight is None:
        raise BackendError(f"the experts of {', '.join(stack.weights)} are no longer one weight")
    uploader.refill(stack.matrix, weight, move.place, stack.transposed)
    if stack.bias is not None:
        found = [
            np.zeros(rows, np.float32) if name is None else _values(move.weights[name])
            for name, rows in zip(stack.biases, stack.rows, strict=True)
        ]
        device.write(stack.bias.buffer, 4 * move.place * sum(stack.rows), np.concatenate(found))


def _values(weight: WeightView) -> np.ndarray:
    return np.asarray(weight.quant.dequantise(weight.data), np.float32).reshape(-1)
