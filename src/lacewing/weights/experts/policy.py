"""Which experts of a layer stay: those that were used often of late.

Least frequently and recently used, layer by layer (`reference/streaming.md`, section 3): the frequency decays with time, and the
age counts against it. A cache of all layers together that forgets the oldest would forget just what comes next.
"""

from __future__ import annotations

import numpy as np

HALF_LIFE = 96  # runs after which a use counts half


class Usage:
    """How often and when each of E experts was used. `counts`, int64 (E, 2), is written by kernels: how many tokens have used
    an expert since the last look, and the run of its last use."""

    def __init__(self, experts: int):
        self.counts = np.zeros((experts, 2), np.int64)
        self._frequency = np.zeros(experts, np.float64)
        self._looked = 0

    def scores(self, clock: int) -> np.ndarray:
        """Float64 (E,), now that `clock` runs have begun: the lowest goes first."""
        elapsed, self._looked = clock - self._looked, clock
        self._frequency *= 0.5 ** (elapsed / HALF_LIFE)
        self._frequency += self.counts[:, 0]
        self.counts[:, 0] = 0
        return np.asarray(self._frequency / (1 + clock - self.counts[:, 1]))
