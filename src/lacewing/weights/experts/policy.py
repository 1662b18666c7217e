"""Which experts of a layer stay: those that were used often of late.

Least frequently and recently used, layer by layer (`reference/streaming.md`, section 3): the frequency decays with time, and the
age counts against it. A cache of all layers together that forgets the oldest would forget just what comes next.
"""

from __future__ import annotations

import numpy as np

HALF_LIFE = 96  # runs after which a use counts half
HISTORY_HALF_LIFE = 4096  # the same for what is kept from one session to the next, which is not to forget all but the last text
PRIOR = 16  # tokens that the history counts as; on public traces more gains nothing, even where it is of the same text


class Usage:
    """How often and when each of E experts was used, `active` by a token. `counts`, int64 (E, 2), is written by kernels: how many
    tokens have used an expert since the last look, and the run of its last use.

    `frequency`, `history`, float64 (E,), as of the last look: uses that decay, the latter slowly, over sessions.
    """

    def __init__(self, experts: int, active: int = 1):
        self.counts = np.zeros((experts, 2), np.int64)
        self.history = np.zeros(experts, np.float64)
        self.frequency, self.active = np.zeros(experts, np.float64), active
        self.looked = np.zeros(1, np.int64)  # runs that had begun at the last look; kernels look as well

    @property
    def nbytes(self) -> int:
        return self.counts.nbytes + self.history.nbytes + self.frequency.nbytes

    def begin_with(self, history: np.ndarray) -> None:
        """As of an earlier session, float64 (E,), before the first run."""
        self.history[:] = history
        self.frequency[:] = history / max(float(history.sum()), 1.0) * PRIOR * self.active

    def go_on(self, other: Usage, clock: int) -> None:
        """In place of another one, whose last look has been; `clock` runs have begun where this one counts."""
        if other.frequency.any():
            self.frequency[:] = other.frequency
        self.looked[0] = clock

    def look(self, clock: int) -> None:
        """Take up what kernels have counted, now that `clock` runs have begun. The tokens of a long run count as if they had come
        one by one, some of which would be half forgotten at its end."""
        elapsed = clock - int(self.looked[0])
        self.looked[0] = clock
        used = self.counts[:, 0].copy()
        self.counts[:, 0] = 0
        tokens = max(1.0, float(used.sum()) / self.active / max(1, elapsed))  # of a run
        for values, half_life in ((self.frequency, HALF_LIFE), (self.history, HISTORY_HALF_LIFE)):
            kept = 0.5 ** (1 / half_life)
            values *= kept**elapsed
            values += used * (1 - kept**tokens) / (tokens * (1 - kept))

    def scores(self, clock: int) -> np.ndarray:
        """Float64 (E,), now that `clock` runs have begun: the lowest goes first."""
        self.look(clock)
        return np.asarray(self.frequency / (1 + clock - self.counts[:, 1]))
