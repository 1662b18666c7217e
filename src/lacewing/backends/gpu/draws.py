"""How tokens are drawn, as the kernel `draw` of a device reads it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lacewing.backends.batch import Draw

WORDS = 8  # of a row: count, top_p, ln(min_p), 1 / temperature, the random number; three are free
_LEAST = -1e30  # logarithm of no probability
_MOST = 1 - 2**-24  # the largest float32 below 1


def draw_options(draws: Sequence[Draw]) -> np.ndarray:
    """Float32 (R, WORDS), without the numbers."""
    options = np.zeros((len(draws), WORDS), np.float32)
    for row, each in zip(options, draws, strict=True):
        row[:4] = each.count, each.top_p, math.log(each.min_p) if each.min_p > 0 else _LEAST, 1 / each.temperature
    return options


def put_numbers(options: np.ndarray, numbers: Sequence[float]) -> None:
    """The random number of each row, from 0 to 1."""
    options[:, 4] = np.minimum(numbers, _MOST)
