"""From a row of logits to the next token: bias, penalties, mask, top-k, top-p, min-p, temperature, in that order.

The filters are pure functions from logits to the indices that stay, so that each can be read and tested alone. They avoid
sorting a whole vocabulary (20 ms at 260,000 tokens): few tokens are ever likely.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lacewing.backends.batch import Candidates, Mask, Wanted
from lacewing.backends.choice import allowed, log_sum_exp, top_k
from lacewing.errors import NumericError, OptionError
from lacewing.options import REFERENCE, Sampling


@dataclass(frozen=True, slots=True)
class Token:
    """A generated token. The log-probabilities are natural logarithms of the raw softmax, before any filter."""

    id: int
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()  # likeliest first


def token_of(row: np.ndarray, token: int, count: int) -> Token:
    """With its log-probability and the `count` likeliest, from raw logits (V,)."""
    with np.errstate(over="ignore", under="ignore"):
        total = log_sum_exp(row)
    likeliest = top_k(row, count) if count else ()
    return Token(token, float(row[token]) - total, tuple((int(each), float(row[each]) - total) for each in likeliest))


def add_bias(logits: np.ndarray, bias: Mapping[int, float]) -> np.ndarray:
    """A copy of `logits` (V,) with the bias of each listed token added."""
    out = logits.copy()
    out[list(bias)] += np.fromiter(bias.values(), np.float32, len(bias))
    return out


def penalise(logits: np.ndarray, recent: Sequence[int], repeat: float, presence: float, frequency: float) -> np.ndarray:
    """A copy of `logits` (V,) where the tokens of `recent` are less likely.

    `repeat` divides positive and multiplies negative logits, `presence` is subtracted once, `frequency` for each occurrence.
    """
    ids, counts = np.unique(np.asarray(recent, np.int64), return_counts=True)
    out = logits.copy()
    seen = out[ids]
    seen = np.where(seen > 0, seen / np.float32(repeat), seen * np.float32(repeat))
    out[ids] = seen - np.float32(frequency) * counts.astype(np.float32) - np.float32(presence)
    return out


def top_p(logits: np.ndarray, p: float) -> np.ndarray:
    """Indices of the fewest likeliest whose probabilities sum to at least p, likeliest first; at least one."""
    top = logits.max()
    target = p * float(np.exp(logits - top).sum(dtype=np.float64))
    k = 64
    while True:
        chosen = top_k(logits, k)
        reached = np.cumsum(np.exp(logits[chosen] - top), dtype=np.float64)
        if reached[-1] >= target or k >= len(logits):
            return chosen[: int(np.searchsorted(reached, target)) + 1]
        k *= 8


def min_p(logits: np.ndarray, p: float) -> np.ndarray:
    """Indices of those at least p times as likely as the likeliest, in their order."""
    return np.flatnonzero(logits >= logits.max() + math.log(p))


class Sampler:
    """The choices of one generation: its options and its own seeded random numbers."""

    def __init__(self, sampling: Sampling, vocab_size: int):
        beyond = [token for token in sampling.logit_bias if token >= vocab_size]
        if beyond:
            raise OptionError(f"`logit_bias` names token {beyond[0]}; this model has {vocab_size} tokens")
        self.sampling = sampling
        self._random = np.random.Generator(np.random.PCG64(sampling.seed))

    @property
    def takes_largest(self) -> bool:
        """Whether every choice is the largest raw logit, and nothing else is asked."""
        options = self.sampling
        return self._raw and not options.logprobs and (options.temperature == 0 or options.top_k == 1)

    @property
    def _raw(self) -> bool:
        """Whether the choice is made among the raw logits."""
        return not self.sampling.logit_bias and not self._penalised

    @property
    def _penalised(self) -> bool:
        options = self.sampling
        penalties = (options.repeat_penalty, options.presence_penalty, options.frequency_penalty)
        return penalties != (1, 0, 0) and options.repeat_window > 0

    def wanted(self, mask: Mask | None = None) -> tuple[Wanted, ...]:
        """All that a choice among what `mask` allows looks at of the largest logits; (): it may look at every one.

        A second wish is for the log-probabilities, which are those of the raw logits.
        """
        options = self.sampling
        count = 1 if options.temperature == 0 else options.top_k
        if not count or self._penalised or (options.logit_bias and options.logprobs):
            return ()
        if mask is None and not options.logit_bias:
            return (Wanted(max(count, options.logprobs)),)
        raw = (Wanted(options.logprobs),) if options.logprobs else ()
        return (Wanted(count, mask, options.logit_bias or None), *raw)

    def pick(self, row: np.ndarray, history: Sequence[int], mask: np.ndarray | None = None) -> Token:
        """The next token after `history` of those that `mask` allows, from its float32 logits (V,).

        Raises NumericError for NaN or infinite rows."""
        if not math.isfinite(float(row.max())):  # max() passes NaN on
            raise not_finite(len(history) - 1)
        with np.errstate(over="ignore", under="ignore"):  # far apart is as good as infinitely far
            return self._pick(row, history, mask)

    def _pick(self, row: np.ndarray, history: Sequence[int], mask: np.ndarray | None) -> Token:
        adjusted = self._adjusted(row, history)
        if mask is None:
            chosen = self._choose(adjusted)
        else:
            ids = np.flatnonzero(allowed(mask, len(row)))
            chosen = int(ids[self._choose(_finite(adjusted[ids]))])
        if not self.sampling.logprobs:
            return Token(chosen)
        return token_of(row, chosen, self.sampling.logprobs)

    def _adjusted(self, row: np.ndarray, history: Sequence[int]) -> np.ndarray:
        options = self.sampling
        if options.logit_bias:
            row = add_bias(row, options.logit_bias)
        if self._penalised and history:
            penalties = (options.repeat_penalty, options.presence_penalty, options.frequency_penalty)
            row = penalise(row, history[-options.repeat_window :], *penalties)
        return row if self._raw else _finite(row)

    def _choose(self, logits: np.ndarray) -> int:
        """One token of (V,); temperature 0 takes the largest, ties to the lowest id."""
        options = self.sampling
        if options.temperature == 0 or options.top_k == 1:
            return int(logits.argmax())
        return self._draw(logits, top_k(logits, options.top_k) if options.top_k else None)

    def pick_among(self, wished: Sequence[Candidates]) -> Token:
        """As `pick`, from what was `wanted`, or more of it."""
        found, raw = wished[0], wished[-1]
        with np.errstate(over="ignore", under="ignore"):
            options = self.sampling
            one = options.temperature == 0 or options.top_k == 1
            place = 0 if one else self._draw(found.logits, np.arange(min(options.top_k, len(found.ids))))
        if not options.logprobs:
            return Token(int(found.ids[place]))
        logprobs = raw.logits[: options.logprobs].astype(np.float64) - raw.log_sum
        likeliest = zip(raw.ids[: options.logprobs].tolist(), logprobs.tolist(), strict=True)
        return Token(int(found.ids[place]), float(found.logits[place]) - raw.log_sum, tuple(likeliest))

    def _draw(self, logits: np.ndarray, ids: np.ndarray | None) -> int:
        """One of `ids`, or of all, after the other filters."""
        options = self.sampling
        if options.top_p < 1:
            ids = _narrow(ids, top_p(_of(logits, ids), options.top_p))
        if options.min_p > 0:
            ids = _narrow(ids, min_p(_of(logits, ids), options.min_p))
        left = _of(logits, ids)
        weights = np.exp((left - left.max()) / np.float64(options.temperature))  # a tiny temperature leaves only the likeliest
        sums = np.cumsum(weights, dtype=np.float64)
        index = min(int(np.searchsorted(sums, self._random.random() * sums[-1], side="right")), len(sums) - 1)
        return index if ids is None else int(ids[index])


def not_finite(position: int) -> NumericError:
    """For logits after a position."""
    return NumericError(
        f"the model produced NaN or infinite logits at position {position}; "
        f"the checkpoint may be damaged (compare its checksum), or try `backend='{REFERENCE}'`"
    )


def _finite(logits: np.ndarray) -> np.ndarray:
    if not math.isfinite(float(logits.max())):
        raise NumericError("logit_bias, penalties or a grammar drive every token to infinity; choose others")
    return logits


def _of(logits: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
    return logits if ids is None else logits[ids]


def _narrow(ids: np.ndarray | None, kept: np.ndarray) -> np.ndarray:
    return kept if ids is None else ids[kept]
