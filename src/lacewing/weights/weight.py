"""A weight, and where its bytes are now: mapped from the files, in RAM, or of experts in slots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lacewing.errors import WeightError
from lacewing.formats.checkpoint import Identity, TensorInfo
from lacewing.formats.read import mapped, release
from lacewing.quants.base import Quant
from lacewing.weights.experts import ExpertCache
from lacewing.weights.experts.layer import LayerExperts
from lacewing.weights.experts.rows import RowTable
from lacewing.weights.tiles import Tiles


class Owned(NamedTuple):
    """Bytes in RAM and the order that they are in (None: row after row), which come and go together."""

    memory: np.ndarray
    tiles: Tiles | None

    def rows(self) -> np.ndarray:
        """uint8 (nbytes,), read-only, row after row; a copy of what is in tile order."""
        if self.tiles is None:
            return self.memory
        rows = np.empty_like(self.memory)
        self.tiles.reorder(self.memory, rows, tiled=True)
        rows.flags.writeable = False
        return rows


@dataclass(frozen=True)
class Eager:
    """What eager weights have in RAM, by name (tied ones the same), and its bytes; `experts`: the slots of streamed ones."""

    owned: Mapping[str, Owned]
    nbytes: int
    experts: ExpertCache | None = None


class Memory:
    """Where all weights of a store look. Its one attribute is set as a whole, so that an interrupt and other threads find the
    weights of one residency."""

    def __init__(self) -> None:
        self.eager: Eager | None = None  # None: lazy


class Weight:
    """One named tensor. `shape` is outermost first: a linear weight is (out, in), experts are (E, out, in)."""

    def __init__(self, name: str, tensor: TensorInfo, files: Mapping[Path, Identity], memory: Memory):
        self._files, self._memory = files, memory
        self.name = name  # in the store: the tensor's own may be that of its file
        self.shape = tensor.shape
        self.quant: Quant = tensor.quant
        self.ranges = tensor.ranges
        self.nbytes = tensor.nbytes
        self.scale_block = tensor.scale_block
        self.scales: Weight | None = None  # factors of blocks of rows and columns; a weight of the store as well
        self._views: list[np.ndarray] | None = None
        self._closed = False

    @property
    def _owned(self) -> Owned | None:
        eager = self._memory.eager
        return None if eager is None else eager.owned.get(self.name)

    @property
    def slots(self) -> LayerExperts | None:
        """Where the experts of a streamed stack are; None: it is not streamed."""
        eager = self._memory.eager
        return None if eager is None or eager.experts is None else eager.experts.layer_of(self.name)

    @property
    def row_table(self) -> RowTable | None:
        """Of a matrix that streaming leaves on the disk; None: it does not."""
        eager = self._memory.eager
        return None if eager is None or eager.experts is None else eager.experts.row_tables.get(self.name)

    @property
    def parts(self) -> list[np.ndarray]:
        """uint8 (nbytes,) of each range: one, or one for each index of the first axis. Read-only."""
        if self._closed:
            raise WeightError(f"weight {self.name} was closed with its model")
        owned, views = self._owned, self._views  # taken once: another thread may change the residency meanwhile
        if owned is not None:
            rows, ends = owned.rows(), np.cumsum([part.nbytes for part in self.ranges])
            return [rows[end - part.nbytes : end] for end, part in zip(ends.tolist(), self.ranges, strict=True)]
        if views is None:
            views = self._views = [mapped(part, self._files.get(part.path)) for part in self.ranges]
        return views

    @property
    def data(self) -> np.ndarray:
        """uint8 (nbytes,), read-only: the blocks, row after row. Take it again after the residency has changed.

        Raises WeightError for a lazy weight that is in several places of its files; its `parts` are there all the same.
        """
        owned = self._owned
        if owned is not None:
            return owned.rows()
        parts = self.parts
        if len(parts) != 1:
            raise WeightError(f"weight {self.name} lies in {len(parts)} places of its files; load it eagerly, or use its parts")
        return parts[0]

    @property
    def tiled(self) -> np.ndarray | None:
        """uint8 (nbytes,), read-only: the blocks in tile order, where eager weights have it; `data` and `parts` are then copies."""
        owned = self._owned
        return None if owned is None or owned.tiles is None else owned.memory

    def dequantise(self) -> np.ndarray:
        """All values, float32 of the weight's shape; for tests and the reference backend."""
        parts = [self.quant.dequantise(part) for part in self.parts]
        values = np.concatenate(parts).reshape(self.shape) if parts else np.empty(self.shape, np.float32)
        if self.scales is None:
            return values
        factors, (rows, columns) = self.scales.dequantise(), self.scale_block
        factors = factors.repeat(rows, -2)[..., : self.shape[-2], :].repeat(columns, -1)[..., : self.shape[-1]]
        return np.asarray(values * factors)

    def _unmap(self) -> None:
        views, self._views = self._views, None
        for view in views or ():
            release(view)

    def _close(self) -> None:
        self._views, self._closed = None, True

    def __repr__(self) -> str:
        return f"Weight({self.name}, {'x'.join(map(str, self.shape))}, {self.quant})"
