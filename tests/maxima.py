"""What a device sees of rows of logits while it makes them, found by NumPy; and that devices which say so say it right."""

from __future__ import annotations

import numpy as np

from lacewing.backends.choice import RowMaxima, top_k


def maxima_of(rows: np.ndarray, lanes: int = 4, size: int = 8) -> RowMaxima:
    """Of float32 (R, V)."""
    count, width = rows.shape
    pieces = -(-width // (lanes * size))
    padded = np.full((count, pieces * lanes * size), -np.inf, np.float32)
    padded[:, :width] = rows
    tops = padded.reshape(count, pieces, size, lanes).max(axis=2).reshape(count, pieces * lanes)
    best = rows.argmax(axis=1)  # the first NaN, if there is one
    return RowMaxima(np.where(np.isfinite(rows[np.arange(count), best]), best, -1), tops, lanes, size)


def check_maxima(found: RowMaxima, rows: np.ndarray) -> None:
    expected = maxima_of(rows, found.lanes, found.size)
    np.testing.assert_array_equal(found.ids, expected.ids)
    for index, row in enumerate(rows):
        if found.ids[index] >= 0:
            np.testing.assert_array_equal(found.tops[index], expected.tops[index])
            for k in (1, 5, 40):
                np.testing.assert_array_equal(found.top_k(index, row, k), top_k(row, k))
