"""Stacked experts as one weight: those of several weights beside each other, or turned round, as the kernels want them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lacewing.backends.base import WeightView
from lacewing.errors import UnsupportedModelError
from lacewing.quants.base import Quant

_FLOATS = {"F32": np.uint32, "F16": np.uint16, "BF16": np.uint16}


@dataclass
class Stack:
    """A weight (E, rows, columns) put together from others; `backends.base.WeightView`."""

    name: str
    shape: tuple[int, ...]
    quant: Quant
    parts: list[np.ndarray]
    scales: WeightView | None = None
    scale_block: tuple[int, int] = (1, 1)

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
    parts = [part for expert in zip(*(_members(weight) for weight in weights), strict=True) for part in expert]
    rows = sum(weight.shape[1] for weight in weights)
    return Stack(" + ".join(weight.name for weight in weights), (first.shape[0], rows, first.shape[2]), first.quant, parts)


def turned(weight: WeightView) -> WeightView:
    """(E, columns, rows) as (E, rows, columns): a copy. Raises UnsupportedModelError where blocks would have to be broken up."""
    if weight.quant.name not in _FLOATS or weight.scales is not None:
        raise UnsupportedModelError(
            f"the WebGPU backend runs weights stored (inputs, outputs) as floats only; {weight.name} is {weight.quant}; "
            "use --backend cpu"
        )
    experts, columns, rows = weight.shape
    item = _FLOATS[weight.quant.name]
    parts = [
        np.ascontiguousarray(member.view(item).reshape(columns, rows).T).reshape(-1).view(np.uint8) for member in _members(weight)
    ]
    return Stack(weight.name, (experts, rows, columns), weight.quant, parts)


def _members(weight: WeightView) -> list[np.ndarray]:
    """uint8: the bytes of each expert."""
    parts = weight.parts
    if len(parts) == weight.shape[0]:
        return [part.reshape(-1) for part in parts]
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return list(whole.reshape(weight.shape[0], -1))
