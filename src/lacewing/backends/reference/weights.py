"""Dequantised weights, of which as many are kept as there is room for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from lacewing.backends.weights import WeightView, rows_of

_SLAB = 2**24  # values that are dequantised at a time where the whole is not kept


class Weights:
    """Dequantised weights, float32; the first ones up to `cache_bytes` are kept."""

    def __init__(self, weights: Mapping[str, WeightView], cache_bytes: int):
        self.weights, self.room = weights, cache_bytes
        self.kept: dict[str, np.ndarray] = {}

    def forget(self) -> None:
        self.room += sum(array.nbytes for array in self.kept.values())
        self.kept.clear()

    def rows(self, name: str, index: slice | np.ndarray) -> np.ndarray:
        """Some rows of a matrix, (rows, columns)."""
        if name in self.kept:
            return self.kept[name][index]
        return rows_of(self.weights[name], index)

    def slabs(self, name: str) -> Iterator[tuple[slice, np.ndarray]]:
        """A matrix in parts: which rows, and their values (rows, columns)."""
        weight = self.weights[name]
        size = 4 * weight.shape[0] * weight.shape[1]
        if name not in self.kept and size <= self.room:
            self.kept[name] = self.rows(name, slice(None))
            self.room -= size
        count = weight.shape[0] if name in self.kept else max(1, _SLAB // weight.shape[1])
        for start in range(0, weight.shape[0], count):
            part = slice(start, start + count)
            yield part, self.rows(name, part)

    def matrix(self, name: str) -> np.ndarray:
        """The whole of a small one, (rows, columns)."""
        weight = self.weights[name]
        return weight.quant.dequantise(weight.data).reshape(weight.shape)

    def vector(self, name: str) -> np.ndarray:
        """(width,)"""
        weight = self.weights[name]
        return np.concatenate([weight.quant.dequantise(part).reshape(-1) for part in weight.parts])

    def member(self, name: str, index: int) -> np.ndarray:
        """What stands at one index of the first axis, such as an expert: (rows, columns), or (rows,)."""
        return self._member(self.weights[name], index)

    def _member(self, weight: WeightView, index: int) -> np.ndarray:
        key = f"{weight.name}[{index}]"
        if key in self.kept:
            return self.kept[key]
        parts, members = weight.parts, weight.shape[0]
        if len(parts) > 1:  # one for each member, or several
            each = len(parts) // members
            data = parts[index] if each == 1 else np.concatenate(parts[index * each : (index + 1) * each])
        else:
            data = parts[0].reshape(members, -1)[index]
        values = weight.quant.dequantise(data).reshape(weight.shape[1:])
        if weight.scales is not None:
            factors, (rows, columns) = self._member(weight.scales, index), weight.scale_block
            values = values * factors.repeat(rows, 0)[: len(values)].repeat(columns, 1)[:, : values.shape[1]]
        if values.nbytes <= self.room:
            self.kept[key] = values
            self.room -= values.nbytes
        return values

    def product(self, x: np.ndarray, name: str) -> np.ndarray:
        """x (T, in) @ weight (out, in).T: (T, out)."""
        out = np.empty((len(x), self.weights[name].shape[0]), np.float32)
        for part, values in self.slabs(name):
            out[:, part] = x @ values.T
        return out
