"""Masks and biases of rows of logits, on a device: what its kernel `best_parts` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lacewing.backends.batch import Wanted
from lacewing.backends.choice import check_mask
from lacewing.backends.gpu.host_rows import Writes

MOST_BIASES = 1024  # of a row
_HEAD = 2  # words: whether there is a mask, the number of biases


def wish_bytes(vocab_size: int, rows: int) -> int:
    """What they take on the device."""
    return 4 * rows * _stride(vocab_size)


def _stride(vocab_size: int) -> int:
    """Words of a row: head, mask, ids, biases."""
    return _HEAD + -(-vocab_size // 32) + 2 * MOST_BIASES


class WishBuffer:
    """A mask and biases for each row of logits; only what has changed is written."""

    def __init__(self, device: Writes, buffer: Any, offset: int, vocab_size: int, rows: int):
        """`buffer`: `wish_bytes` from byte `offset` on."""
        self._device, self._vocabulary, self._buffer, self._offset = device, vocab_size, buffer, offset
        self.stride = _stride(vocab_size)
        self._masked = [-1] * rows  # as they stand on the device; -1: not known
        self._biases: list[Mapping[int, float] | None] = [None] * rows

    def write(self, wanted: Sequence[Wanted]) -> None:
        """For the next choice, of settled wishes. Raises OptionError for a mask of another size."""
        for row, each in enumerate(wanted):
            mask = each.mask if isinstance(each.mask, np.ndarray) else None
            masked, bias = int(mask is not None), each.bias or {}
            if mask is not None:
                check_mask(mask, self._vocabulary)
                self._put(row, _HEAD, mask)
            if masked != self._masked[row] or bias != self._biases[row]:
                ids = np.array(sorted(bias), np.uint32)
                values = np.array([bias[token] for token in ids.tolist()], np.float32)
                if len(ids):
                    self._put(row, self.stride - 2 * MOST_BIASES, ids)
                    self._put(row, self.stride - MOST_BIASES, values)
                self._put(row, 0, np.array([masked, len(ids)], np.uint32))
                self._masked[row], self._biases[row] = masked, dict(bias)

    def _put(self, row: int, word: int, values: np.ndarray) -> None:
        self._device.write(self._buffer, self._offset + 4 * (row * self.stride + word), np.ascontiguousarray(values))
