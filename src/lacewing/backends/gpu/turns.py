"""Frequencies of rotary positions as kernels read them."""

from __future__ import annotations

import numpy as np


def fixed_turns(frequencies: tuple[float, ...]) -> np.ndarray:
    """Radians a position as shares of a turn in 40 bits, uint32 (pairs, 2): 32 bits, and 8 more."""
    shares = np.array(frequencies, np.float64) / (2 * np.pi) % 1.0
    fixed = np.floor(shares * 2.0**40 + 0.5).astype(np.uint64) & np.uint64(2**40 - 1)
    return np.ascontiguousarray(np.stack([fixed >> np.uint64(8), fixed & np.uint64(255)], axis=-1), np.uint32)
