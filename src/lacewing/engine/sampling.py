"""From a row of logits to the next token: bias, penalties, mask, top-k, top-p, min-p, temperature, in that order.

The filters are pure functions from logits to the indices that stay, so that each can be read and tested alone. They avoid
sorting a whole vocabulary (20 ms at 260,000 tokens): few tokens are ever likely.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from lacewing.backends.batch import Candidates, Draw, Mask, Wanted
from lacewing.backends.choice import allowed, log_sum_exp, top_k
from lacewing.engine.adjust import Adjustments
from lacewing.errors import NumericError, OptionError
from lacewing.options import REFERENCE, Sampling

Top = Callable[[int], np.ndarray]  # `top_k` of a row
HEAD = 64  # likeliest tokens that a device is asked for where nobody says how many count


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
    """Indices of those at least p times as likely as the likeliest, likeliest first."""
    kept = np.flatnonzero(logits >= logits.max() + math.log(p))
    return kept[np.argsort(-logits[kept], kind="stable")]


class Sampler:
    """The choices of one generation: its options and its own seeded random numbers.

    A token takes one random number, whatever is run in between: so a seed gives the same tokens in any company. Where a device
    gives the largest logits alone, the choice is the one that whole rows lead to, or `pick_among` says that these are needed.

    `takes_largest`: every choice is the largest raw logit, and nothing else is asked. `plain_count`: of so many of the largest raw
    logits it draws one, and tells nothing else; 0: it is not as simple as that.
    """

    def __init__(self, sampling: Sampling, vocab_size: int):
        beyond = [token for token in sampling.logit_bias if token >= vocab_size]
        if beyond:
            raise OptionError(f"`logit_bias` names token {beyond[0]}; this model has {vocab_size} tokens")
        self.sampling = sampling
        self._adjust = Adjustments(sampling)
        self._greedy = sampling.temperature == 0 or sampling.top_k == 1
        plain = self._adjust.none and not sampling.logprobs
        self.takes_largest = plain and self._greedy
        self.plain_count = sampling.top_k if plain and not self._greedy else 0
        self._numbers: deque[float] = deque()  # drawn for the tokens that come
        self._looked = False  # the next token takes one
        self._used: float | None = None  # by a choice that may be made again

    @property
    def draw(self) -> Draw | None:
        """What it does with raw logits, if a device can do that by itself; None: it is not as simple as that."""
        options = self.sampling
        if self.takes_largest:
            return Draw()
        return Draw(options.top_k, options.top_p, options.min_p, options.temperature) if self.plain_count else None

    def wanted(self, history: Sequence[int], mask: Mask | None = None) -> tuple[Wanted, ...]:
        """What a choice after `history`, among what `mask` allows, looks at of the largest logits; (): at whole rows.

        A second wish is for the log-probabilities, which are those of the raw logits.
        """
        options, adjust = self.sampling, self._adjust
        sums = not (self._greedy or options.top_k) and (options.top_p < 1 or not options.min_p)  # of all weights are needed,
        known = adjust.none and mask is None and (options.top_p < 1 or options.temperature == 1)  # and told of raw logits alone
        if (sums and not known) or not (adjust.additive or adjust.lowers):
            return ()
        count = 1 if self._greedy else options.top_k or HEAD
        if not adjust.additive:
            count = max(count, HEAD)
        added = adjust.added(history)
        if mask is None and not added:
            return (Wanted(max(count, options.logprobs)),)
        likeliest = (Wanted(max(options.logprobs, HEAD if added else 1)),) if options.logprobs else ()
        return (Wanted(count, mask, added or None), *likeliest)

    # from whole rows

    def pick(self, row: np.ndarray, history: Sequence[int], mask: np.ndarray | None = None, top: Top | None = None) -> Token:
        """The next token after `history` of those that `mask` allows, from its float32 logits (V,). `top`: of a row without NaN
        whose largest is finite, where that is known.

        Raises NumericError for NaN or infinite rows.
        """
        if top is None and not math.isfinite(float(row.max())):  # max() passes NaN on
            raise not_finite(len(history) - 1)
        with np.errstate(over="ignore", under="ignore"):  # far apart is as good as infinitely far
            adjusted = row if self._adjust.none else _finite(self._adjust.row(row, history))
            if mask is None:
                chosen = self._choose(adjusted, top if adjusted is row else None)
            else:
                ids = np.flatnonzero(allowed(mask, len(row)))
                chosen = int(ids[self._choose(_finite(adjusted[ids]))])
        self._spend()
        return token_of(row, chosen, self.sampling.logprobs) if self.sampling.logprobs else Token(chosen)

    def _choose(self, logits: np.ndarray, top: Top | None = None) -> int:
        """One token of (V,); the largest is taken with ties to the lowest id."""
        options, top = self.sampling, top or partial(top_k, logits)
        if self._greedy:
            return int(logits.argmax())
        if options.top_k:
            ids = top(options.top_k)
        elif options.top_p < 1:
            ids = top_p(logits, options.top_p)
        elif options.min_p > 0:
            ids = min_p(logits, options.min_p)
        else:
            return self._of_all(logits, top)
        return int(ids[self._draw(logits[ids], options.top_p if options.top_k else 1.0)])

    def _of_all(self, logits: np.ndarray, top: Top) -> int:
        """Nothing is filtered out. The likeliest stand first, so that a device that knows only these comes to the same choice."""
        head = top(HEAD)
        weights = np.exp((logits - logits[head[0]]) / np.float64(self.sampling.temperature))
        sums, target = np.cumsum(weights[head]), self._uniform() * float(weights.sum())
        if target < sums[-1]:
            return int(head[int(np.searchsorted(sums, target, side="right"))])
        weights[head] = 0.0
        others = np.cumsum(weights)
        if others[-1] <= 0:
            return int(head[-1])
        place = int(np.searchsorted(others, target - sums[-1], side="right"))
        return place if place < len(others) else int(np.flatnonzero(weights)[-1])

    # from the largest logits

    def pick_among(self, wanted: Sequence[Wanted], wished: Sequence[Candidates], history: Sequence[int]) -> Token | None:
        """As `pick`, from what was `wanted`, or more of it; None: it takes whole rows to tell."""
        found, raw, logprobs = wished[0], wished[-1], self.sampling.logprobs
        with np.errstate(over="ignore", under="ignore"):
            ids, logits, rest = self._adjusted(found, len(found.ids) >= wanted[0].count, history)
            place = self._place(logits, rest, found.log_sum)
        if place is None:
            return None
        token: Token | None = Token(int(ids[place]))
        if token is not None and logprobs:
            token = _told(token.id, raw if wanted[0].bias else found, raw, logprobs)
        if token is not None:
            self._spend()
        return token

    def _adjusted(self, found: Candidates, more: bool, history: Sequence[int]) -> tuple[np.ndarray, np.ndarray, float]:
        """Ids and logits that are known to be the largest, and what all others, if there are `more`, are not above."""
        ids, logits = found.ids, found.logits
        rest = float(logits[-1]) if more else -math.inf
        adjusted = self._adjust.candidates(found, history)
        if adjusted is None:
            return ids, logits, rest
        order = np.lexsort((ids, -adjusted))
        kept = order[adjusted[order] > rest] if more else order
        return ids[kept], adjusted[kept], rest

    def _place(self, logits: np.ndarray, rest: float, log_sum: float) -> int | None:
        """The chosen one of the largest logits, likeliest first; `rest`: no other is above it, minus infinity: there is none."""
        options, all_known = self.sampling, rest == -math.inf
        if not len(logits):
            return None
        if self._greedy:
            return 0
        if options.top_k:
            enough = all_known or len(logits) >= options.top_k
            return self._draw(logits[: options.top_k], options.top_p) if enough else None
        top = float(logits[0])
        total = math.exp(log_sum - top)  # of all that are not adjusted
        if options.top_p < 1:
            reached = np.cumsum(np.exp(logits - top), dtype=np.float64)
            target = options.top_p * (float(reached[-1]) if all_known else total)
            if reached[-1] < target:
                return None
            return self._draw(logits[: int(np.searchsorted(reached, target)) + 1], 1.0)
        if options.min_p > 0:
            least = logits[0] + math.log(options.min_p)
            return None if rest >= least else self._draw(logits, 1.0)
        sums = np.cumsum(np.exp((logits - logits[0]) / np.float64(options.temperature)))
        target = self._uniform() * (float(sums[-1]) if all_known else total)
        return int(np.searchsorted(sums, target, side="right")) if target < sums[-1] else None

    # both

    def _draw(self, logits: np.ndarray, p: float) -> int:
        """A place among a few logits, likeliest first, after what filters are left: top-p with `p`, min-p."""
        if p < 1:
            logits = logits[: len(top_p(logits, p))]
        if self.sampling.min_p > 0:
            logits = logits[: len(min_p(logits, self.sampling.min_p))]
        weights = np.exp((logits - logits[0]) / np.float64(self.sampling.temperature))  # a tiny one leaves only the likeliest
        sums = np.cumsum(weights, dtype=np.float64)
        return min(int(np.searchsorted(sums, self._uniform() * sums[-1], side="right")), len(sums) - 1)

    @cached_property
    def _random(self) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(self.sampling.seed))

    def upcoming(self, index: int) -> float:
        """The random number, from 0 to 1, of the next token, or of the index-th after it, if each of them takes one."""
        while len(self._numbers) <= index:
            self._numbers.append(float(self._random.random()))
        return self._numbers[index]

    def _uniform(self) -> float:
        """The random number of the next token."""
        self._looked = True
        return self.upcoming(0)

    def take_uniform(self) -> float:
        """As `_uniform`, for a token that is chosen with it."""
        found = self._uniform()
        self._spend()
        return found

    def _spend(self) -> None:
        self._used, self._looked = self._numbers.popleft() if self._looked else None, False

    def chosen(self) -> None:
        """The last choice stands."""
        self._used = None

    def choose_again(self) -> None:
        """What was chosen since `chosen`, if anything, is lost with its run; the next choice takes the same random number."""
        if self._used is not None:
            self._numbers.appendleft(self._used)
            self._used = None


def _told(token: int, own: Candidates, raw: Candidates, count: int) -> Token | None:
    """With its log-probability, from `own`, and the likeliest of `raw`; None: it is not in there."""
    places = np.flatnonzero(own.ids == token)
    if not places.size:
        return None
    logprobs = raw.logits[:count].astype(np.float64) - raw.log_sum
    likeliest = zip(raw.ids[:count].tolist(), logprobs.tolist(), strict=True)
    return Token(token, float(own.logits[places[0]]) - raw.log_sum, tuple(likeliest))


def not_finite(position: int) -> NumericError:
    """For logits after a position."""
    problem = f"the model produced NaN or infinite logits at position {position}"
    return NumericError(problem, suspect=True, advice=f", or try `backend='{REFERENCE}'`")


def _finite(logits: np.ndarray) -> np.ndarray:
    if not math.isfinite(float(logits.max())):
        raise NumericError("logit_bias, penalties or a grammar drive every token to infinity; choose others")
    return logits
