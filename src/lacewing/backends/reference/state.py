"""What the ops of a step work on: buffers, keys and values, dequantised weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from lacewing.backends.base import RoutedLayer, StepLimits, WeightView
from lacewing.program.ops import View
from lacewing.program.program import Program

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
        weight = self.weights[name]
        values = weight.quant.dequantise(weight.data.reshape(weight.shape[0], -1)[index])
        scales = weight.scales
        if scales is None:
            return values
        factors, (rows, columns) = scales.quant.dequantise(scales.data).reshape(scales.shape), weight.scale_block
        factors = factors[np.arange(weight.shape[0])[index] // rows].repeat(columns, axis=-1)[..., : values.shape[-1]]
        return np.asarray(values * factors)

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

    def vector(self, name: str) -> np.ndarray:
        """(width,)"""
        weight = self.weights[name]
        return weight.quant.dequantise(weight.data)

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


class State:
    """Buffers are made for each run, (T, width); keys and values stay."""

    def __init__(
        self, program: Program, weights: Mapping[str, WeightView], limits: StepLimits, half_precision: bool, cache_bytes: int
    ):
        self.weights, self.half_precision = Weights(weights, cache_bytes), half_precision
        self.keys_values: list[tuple[np.ndarray, np.ndarray]] = []
        for layer in program.layers:
            shape = (limits.slots, limits.context, layer.key_heads)
            keys = np.zeros((*shape, layer.key_width), np.float32)
            inside = layer.values_in_keys
            values = keys[..., : layer.value_width] if inside else np.zeros((*shape, layer.value_width), np.float32)
            self.keys_values.append((keys, values))
        self.logits = np.empty((0, program.vocab_size), np.float32)
        self.watched: list[RoutedLayer] | None = None  # what routers decided, where somebody asked for it
        self.layer = 0  # of the attention that ran last

    def begin(self, tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, outputs: np.ndarray) -> None:
        if self.watched is not None:
            self.watched = []
        self.tokens, self.slots, self.outputs = tokens, slots, outputs
        self.positions = positions.astype(np.int64)  # lengths of windows, chunks and steps may exceed int32
        self.buffers: dict[str, np.ndarray] = {}

    def view(self, view: View) -> np.ndarray:
        """The columns of a view, (T, width); writing to it writes the buffer."""
        buffer = self.buffers.get(view.buffer.name)
        if buffer is None:
            # NaN: whatever is read before it is written shows in the logits
            buffer = self.buffers[view.buffer.name] = np.full((len(self.tokens), view.buffer.width), np.nan, np.float32)
        return buffer[:, view.start : view.start + view.width]
