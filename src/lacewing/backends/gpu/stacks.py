"""Stacked experts: of several weights as those of one; some of all, exchanged for others between two runs (`offload.cache`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from lacewing.backends.gpu.conversion import stored_bytes
from lacewing.backends.gpu.layouts import Layout
from lacewing.backends.step import SwapIn
from lacewing.backends.weights import ExpertSlots, RowTable, WeightView, members
from lacewing.errors import BackendError
from lacewing.quants.base import Quant


class StoredMatrix(Protocol):
    """A matrix on a device."""

    @property
    def layout(self) -> Layout: ...

    @property
    def columns(self) -> int: ...


M = TypeVar("M", bound=StoredMatrix)
Target = TypeVar("Target", contravariant=True)
Bias = TypeVar("Bias")  # where biases are on the device


class ExpertUploader(Protocol[Target]):
    """What a backend's uploader does with an expert."""

    def reserve(self, nbytes: int) -> None: ...

    def refill(self, matrix: Target, weight: WeightView, place: int, transposed: bool = False) -> None: ...

    def close(self) -> None: ...


@dataclass
class Stack:
    """A weight (E, rows, columns) put together from others; `backends.base.WeightView`."""

    name: str
    shape: tuple[int, ...]
    quant: Quant
    parts: list[np.ndarray]
    scales: WeightView | None = None
    scale_block: tuple[int, int] = (1, 1)
    tiled: np.ndarray | None = None
    slots: ExpertSlots | None = None
    row_table: RowTable | None = None

    @property
    def data(self) -> np.ndarray:
        return np.concatenate(self.parts)


def joined(weights: Sequence[WeightView]) -> WeightView | None:
    """(E, sum of the rows, columns), an expert's rows of all weights together; None where they cannot be one weight."""
    first = weights[0]
    if len(weights) == 1:
        return first
    if any(weight.quant is not first.quant or weight.scales is not None for weight in weights):
        return None
    parts = [part for expert in zip(*(members(weight) for weight in weights), strict=True) for part in expert]
    rows = sum(weight.shape[1] for weight in weights)
    return Stack(" + ".join(weight.name for weight in weights), (first.shape[0], rows, first.shape[2]), first.quant, parts)


@dataclass(frozen=True)
class ResidentStack(Generic[M, Bias]):
    """The experts of `weights` on a device as one matrix; `bias` float32 (places, rows of all weights), zeros where a weight
    has none.
    """

    weights: tuple[str, ...]
    biases: tuple[str | None, ...]
    rows: tuple[int, ...]  # of an expert, of each weight
    matrix: M
    bias: Bias
    transposed: bool

    @property
    def expert_bytes(self) -> int:
        """On its way to the device."""
        return sum(self.rows) * stored_bytes(self.matrix.layout.quant, self.matrix.columns)


def swap_in(
    uploader: ExpertUploader[M],
    stacks: Sequence[ResidentStack[M, Bias]],
    moves: Sequence[SwapIn],
    begin: Callable[[], None],
    write: Callable[[Bias, int, np.ndarray], None],
) -> None:
    """See `backends.step.Step.put_experts`. `write`: values over biases from a byte on. Closes the uploader."""
    try:
        uploader.reserve(max(stack.expert_bytes for stack in stacks))
        begin()
        for move in moves:
            for stack in stacks:
                if stack.weights[0] not in move.weights:
                    continue
                weight = joined([move.weights[name] for name in stack.weights])
                if weight is None:
                    raise BackendError(f"the experts of {', '.join(stack.weights)} are no longer one weight")
                uploader.refill(stack.matrix, weight, move.place, stack.transposed)
                if any(stack.biases):
                    write(stack.bias, 4 * move.place * sum(stack.rows), _biases(stack.biases, stack.rows, move))
    finally:
        uploader.close()


def _biases(names: Sequence[str | None], widths: Sequence[int], move: SwapIn) -> np.ndarray:
    found = []
    for name, width in zip(names, widths, strict=True):
        weight = None if name is None else move.weights[name]
        values = np.zeros(width) if weight is None else weight.quant.dequantise(weight.data)
        found.append(np.asarray(values, np.float32).reshape(-1))
    return np.concatenate(found)


def stacked_biases(
    weights: Mapping[str, WeightView], experts: int, names: Sequence[str | None], widths: Sequence[int]
) -> np.ndarray:
    """float32 (experts, sum of widths): the biases of stacks one beside another, zeros for a stack that has none."""
    values = []
    for name, width in zip(names, widths, strict=True):
        weight = weights[name] if name is not None else None
        part = np.zeros((experts, width), np.float32) if weight is None else weight.quant.dequantise(weight.data)
        values.append(np.asarray(part, np.float32).reshape(experts, width))
    return np.ascontiguousarray(np.concatenate(values, axis=1))
