"""Stacked experts of several weights as those of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lacewing.backends.weights import ExpertSlots, WeightView, members
from lacewing.quants.base import Quant


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
