"""Whether looking ahead pays, by trying: some runs with it, some without, by turns, and their times compared.

Guesses are worth something only while the disk would be idle otherwise; on many machines they lose (`reference/streaming.md`,
fact 8). Turns cancel what changes slowly, such as a cache that fills; medians cancel single slow reads. Only runs of equally many
tokens are compared: one of eight takes less time a token than one of two.
"""

from __future__ import annotations

import statistics
import time

TURN = 8  # runs with the same choice
TURNS = 16  # between two decisions
GAIN = 1.02  # tokens/s with guesses over those without, at least
FEW = 32  # tokens of a run that is counted
_WARM = 16  # runs before the first turn, in which slots fill
_ENOUGH = TURN  # runs with and without, at least
_CHECKED = 8  # once it pays, one turn of so many goes without, to compare with


class Trial:
    """Asked before each run (`wanted`), told of its end. `verdict`: "measuring", "pays", or for good "off" or "impossible"."""

    def __init__(self) -> None:
        self.verdict = "measuring"
        self.rates: tuple[float, float] | None = None  # tokens/s with and without, of the last decision
        self._runs, self._began, self._guessed = -_WARM, 0.0, 0
        self._times: dict[int, tuple[list[float], list[float]]] = {}  # by tokens of a run: its seconds, without and with

    @property
    def is_over(self) -> bool:
        return self.verdict in ("off", "impossible")

    @property
    def wanted(self) -> bool:
        """In the run that is under way."""
        if self.is_over or self._runs < 0:
            return False
        turn = self._runs // TURN
        return turn % _CHECKED != 0 if self.verdict == "pays" else turn % 4 in (1, 2)

    def rule_out(self) -> None:
        """Nothing of this model can be guessed."""
        self.verdict = "impossible"

    def begin(self) -> None:
        self._began = time.perf_counter()

    def end(self, tokens: int, guessed: int) -> None:
        """`guessed`: experts that were ever guessed; if no more than at the last decision, there is nothing to judge."""
        if self.is_over or tokens > FEW:
            return
        if self._runs >= 0:
            self._times.setdefault(tokens, ([], []))[self.wanted].append(time.perf_counter() - self._began)
        self._runs += 1
        if self._runs > 0 and self._runs % (TURN * TURNS) == 0:
            if guessed == self._guessed:
                self._times.clear()
            elif self._decide():
                self._guessed = guessed

    def _decide(self) -> bool:
        """Whether there are enough runs of equally many tokens to do so."""
        tokens, times = max(self._times.items(), key=lambda each: min(map(len, each[1])))
        if min(map(len, times)) < _ENOUGH:
            return False
        without, with_guesses = map(statistics.median, times)
        self.rates = tokens / with_guesses, tokens / without
        self.verdict = "pays" if self.rates[0] >= GAIN * self.rates[1] else "off"
        self._times.clear()
        return True

    def __str__(self) -> str:
        if self.verdict == "impossible":
            return "no layer's router can be asked before its turn: it is switched off"
        if self.rates is None:
            return "being measured"
        measured = f"{self.rates[0]:.2f} tokens/s with it, {self.rates[1]:.2f} without"
        return f"{measured}: it is {'used' if self.verdict == 'pays' else 'switched off'}"
