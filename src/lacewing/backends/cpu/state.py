"""Keys and values of a slot, out of and into the layout of the kernels (`kernels/attention/heads.py`)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lacewing.backends.cpu.isa import host_isa
from lacewing.backends.cpu.lowering.context import Lowering
from lacewing.errors import OptionError


def _views(lowering: Lowering, slot: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each layer: keys (K, blocks, C, lanes), position = block * lanes + lane; values (K, positions, C)."""
    lanes, limits = host_isa().lanes, lowering.limits
    if not 0 <= slot < limits.slots:
        raise OptionError(f"slot {slot} is out of range; there are {limits.slots}")
    for layer, keys, values in zip(lowering.program.layers, lowering.keys, lowering.values, strict=True):
        value_width = 0 if layer.values_in_keys else layer.value_width
        stored = values[: limits.slots * layer.key_heads * limits.context * value_width]
        yield (
            keys.reshape(limits.slots, layer.key_heads, -1, layer.key_width, lanes)[slot],
            stored.reshape(limits.slots, layer.key_heads, limits.context, value_width)[slot],
        )


def _check(lowering: Lowering, count: int) -> int:
    """Bytes of `count` positions."""
    if not 0 <= count <= lowering.limits.context:
        raise OptionError(f"{count} positions do not fit a slot of {lowering.limits.context}")
    return count * lowering.program.kv_bytes_per_token


def read_slot(lowering: Lowering, slot: int, count: int) -> np.ndarray:
    """uint8 (count * bytes of a position): layer after layer keys, then values, each (K, count, C)."""
    out, at = np.empty(_check(lowering, count), np.uint8), 0
    for keys, values in _views(lowering, slot):
        heads, _, width, _ = keys.shape
        for part in (keys.transpose(0, 1, 3, 2).reshape(heads, -1, width)[:, :count], values[:, :count]):
            data = np.ascontiguousarray(part).view(np.uint8).reshape(-1)
            out[at : at + data.size] = data
            at += data.size
    return out


def write_slot(lowering: Lowering, slot: int, count: int, data: np.ndarray) -> None:
    """Put back what `read_slot` gave."""
    if data.dtype != np.uint8 or data.size != _check(lowering, count):
        raise OptionError(f"keys and values of {count} positions take {_check(lowering, count)} bytes, not {data.nbytes}")
    at = 0
    for keys, values in _views(lowering, slot):
        heads, blocks, width, lanes = keys.shape
        taken = heads * count * width * keys.itemsize
        padded = np.zeros((heads, blocks * lanes, width), keys.dtype)
        padded[:, :count] = data[at : at + taken].view(keys.dtype).reshape(heads, count, width)
        keys[:] = padded.reshape(heads, blocks, lanes, width).transpose(0, 1, 3, 2)
        at += taken
        taken = heads * count * values.shape[2] * values.itemsize
        values[:, :count] = data[at : at + taken].view(values.dtype).reshape(heads, count, -1)
        at += taken
