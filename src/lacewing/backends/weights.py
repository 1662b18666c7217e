"""What a backend sees of weights: before they are read (`TensorSpec`), and when they are there (`WeightView`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lacewing.quants.base import Quant


@dataclass(frozen=True)
class TileOrder:
    """Another order of a quantised weight in memory: tile after tile of `rows` rows; in a tile group after group of `columns`
    columns, the last one of what is left; in a group row after row. A weight of experts has whole tiles of each.
    """

    rows: int
    columns: int


class TensorSpec(Protocol):
    """What is known of a weight before it is read."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def quant(self) -> Quant: ...

    @property
    def nbytes(self) -> int: ...

    @property
    def scales(self) -> object: ...

    @property
    def scale_block(self) -> tuple[int, int]: ...


class WeightView(Protocol):
    """What a backend sees of a weight (`weights.store.Weight` is one)."""

    name: str
    shape: tuple[int, ...]
    quant: Quant

    @property
    def data(self) -> np.ndarray:
        """uint8 (nbytes,): the blocks, row after row; a view of mapped or owned memory. Valid until the residency changes."""
        ...

    @property
    def parts(self) -> list[np.ndarray]:
        """uint8, one array, or one for each index of the first axis: stacked experts may lie apart in their files."""
        ...

    @property
    def tiled(self) -> np.ndarray | None:
        """uint8 (nbytes,): all blocks in the order that the backend asked for (`Backend.tile_orders`); None: they are not in memory
        so. `data` and `parts` are then copies.
        """
        ...

    @property
    def scales(self) -> WeightView | None:
        """Factors, one for each block of `scale_block` rows and columns, that the values are multiplied by; None: all 1."""
        ...

    @property
    def scale_block(self) -> tuple[int, int]: ...
