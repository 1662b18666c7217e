"""Weights in tile order (`backends.base.TileOrder`): read from a file that has row after row, and brought back to rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from lacewing.backends.weights import TileOrder
from lacewing.formats.checkpoint import ByteRange
from lacewing.formats.read import Reader
from lacewing.quants.base import Quant

PIECE_BYTES = 2**21  # what is read at a time stays in the CPU's cache until it is reordered


@dataclass(frozen=True)
class Tiles:
    """Tile order of a weight: sizes of a row, and of its part in a group of columns, in bytes. With `pieces` a group is a block."""

    rows: int
    row_bytes: int
    group_bytes: int
    pieces: tuple[int, ...] = ()

    @classmethod
    def of(cls, order: TileOrder, quant: Quant, width: int) -> Tiles:
        """Of rows of `width` values."""
        group = quant.block_bytes if order.pieces else quant.row_bytes(order.columns)
        return cls(order.rows, quant.row_bytes(width), group, order.pieces)

    @property
    def nbytes(self) -> int:
        """Of a tile."""
        return self.rows * self.row_bytes

    def reorder(self, source: np.ndarray, target: np.ndarray, *, tiled: bool) -> None:
        """Whole tiles, uint8 (n * nbytes,): rows of `source` to tile order in `target`, or, `tiled`, the other way round."""
        for mine, theirs in zip(self._views(target, tiled=not tiled), self._views(source, tiled=tiled), strict=True):
            if mine.size:
                mine[...] = theirs

    def _views(self, memory: np.ndarray, *, tiled: bool) -> Iterator[np.ndarray]:
        """What moves as one, in the same order for both sides: of each group of columns a row's bytes, or pieces of one size."""
        groups = self._groups(memory, tiled=tiled)
        if not self.pieces:
            for group in groups:
                yield group.view(f"V{group.shape[-1]}")
            return
        blocks = groups[0]  # (tiles, blocks, rows, bytes)
        for size, first, count in _runs(self.pieces):
            if tiled:
                whole = blocks.reshape(*blocks.shape[:2], -1)[..., self.rows * first : self.rows * (first + size * count)]
                yield whole.view(f"u{size}").reshape(*blocks.shape[:2], count, self.rows)
            else:
                yield blocks[..., first : first + size * count].view(f"u{size}").swapaxes(2, 3)

    def _groups(self, memory: np.ndarray, *, tiled: bool) -> tuple[np.ndarray, np.ndarray]:
        """Views (tiles, groups, rows, bytes): the whole groups of columns, and what columns are left."""
        whole = self.row_bytes // self.group_bytes * self.group_bytes
        if tiled:
            tiles = memory.reshape(-1, self.nbytes)
            groups, rest = tiles[:, : self.rows * whole], tiles[:, self.rows * whole :]
            return (
                groups.reshape(len(tiles), whole // self.group_bytes, self.rows, self.group_bytes),
                rest.reshape(len(tiles), 1, self.rows, self.row_bytes - whole),
            )
        rows = memory.reshape(-1, self.rows, self.row_bytes)
        groups = rows[:, :, :whole].reshape(len(rows), self.rows, whole // self.group_bytes, self.group_bytes)
        return groups.swapaxes(1, 2), rows[:, None, :, whole:]

    def read(self, reader: Reader, part: ByteRange, out: np.ndarray) -> None:
        """As `Reader.into`, into tile order. `part` is whole tiles."""
        start = 0
        for piece in reader.pieces(part, max(1, PIECE_BYTES // self.nbytes) * self.nbytes):
            self.reorder(piece, out[start : start + piece.size], tiled=False)
            start += piece.size


def _runs(pieces: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """(size, first byte, how many) of pieces of one size that follow each other."""
    first = 0
    for size, same in groupby(pieces):
        count = len(list(same))
        yield size, first, count
        first += size * count
