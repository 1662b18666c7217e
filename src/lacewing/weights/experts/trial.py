"""Whether looking ahead pays, by trying: some runs with it, some without, by turns, and their times compared.

Guesses are worth something only while the disk would be idle otherwise; on many machines they lose (`reference/streaming.md`,
fact 8). Turns cancel what changes slowly, such as a cache that fills; medians cancel single slow reads.
"""

from __future__ import annotations

import statistics
import time

TURN = 8  # runs with the same choice
TURNS = 16  # between two decisions
GAIN = 1.02  # tokens/s with guesses over those without, at least
FEW = 32  # tokens of a run that is counted
_WARM = 16  # runs before the first turn, in which slots fill
_CHECKED = 8  # once it pays, one turn of so many goes without, to compare with


class Trial:
    """Asked before each run (`wanted`), told of its end. `verdict`: "measuring", "pays" or "off", which is for good."""

    def __init__(self) -> None:
        self.verdict = "measuring"
        self.rates: tuple[float, float] | None = None  # tokens/s with and without, of the last decision
        self._runs, self._began = -_WARM, 0.0
        self._times: tuple[list[float], list[float]] = ([], [])  # seconds a token, without and with

    @property
    def wanted(self) -> bool:
        """In the run that is under way."""
        if self.verdict == "off" or self._runs < 0:
            return False
        turn = self._runs // TURN
        return turn % _CHECKED != 0 if self.verdict == "pays" else turn % 4 in (1, 2)

    def begin(self) -> None:
        self._began = time.perf_counter()

    def end(self, tokens: int) -> None:
        if self.verdict == "off" or tokens > FEW:
            return
        if self._runs >= 0:
            self._times[self.wanted].append((time.perf_counter() - self._began) / tokens)
        self._runs += 1
        if self._runs > 0 and self._runs % (TURN * TURNS) == 0:
            self._decide()

    def _decide(self) -> None:
        without, with_guesses = map(statistics.median, self._times)
        self.rates = 1 / with_guesses, 1 / without
        self.verdict = "pays" if self.rates[0] >= GAIN * self.rates[1] else "off"
        self._times = ([], [])

    def __str__(self) -> str:
        if self.rates is None:
            return "being measured"
        measured = f"{self.rates[0]:.2f} tokens/s with it, {self.rates[1]:.2f} without"
        return f"{measured}: it is {'used' if self.verdict == 'pays' else 'switched off'}"
