"""What a request takes of the run of its prompt, besides an answer: log-probabilities of the prompt's tokens, or hidden states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from lacewing.backends.batch import Candidates, Wanted
from lacewing.engine.sampling import Token, not_finite, token_of
from lacewing.errors import NumericError, OptionError

POOLINGS = ("last", "mean", "none")  # of hidden states: the last token's, their mean, those of each token
MOST_LOGPROBS = 100
_LIFT = 64.0  # added to a logit: more than lies between likely tokens and others, and little enough to cost no precision


class Collector(ABC):
    """Takes rows of positions of the prompt, in their order; those that it has already are passed over.

    `reads_hidden`: rows are hidden states (D,), and the request ends with its prompt; else logits (V,). `error`: a row was broken.
    """

    reads_hidden = False

    def wish(self, position: int) -> Wanted | None:
        """What it looks at of the largest logits of a position; None: at the whole row."""
        return None

    def among(self, position: int, found: Candidates) -> Callable[[], None] | None:
        """As `take`, of what its wish gave, once it is called; None: it takes the whole row to tell."""
        return None

    def __init__(self, first: int, end: int):
        self.done, self.end = first, end  # the next position that is wanted, and the one behind the last
        self.error: NumericError | None = None

    def wanted(self, start: int, end: int) -> range:
        """The positions that it still wants, of those from `start` to `end`."""
        return range(max(start, self.done), max(self.done, min(end, self.end)))

    def take(self, position: int, row: np.ndarray) -> None:
        """Raises nothing."""
        if position != self.done or self.error is not None:
            return
        if not np.isfinite(row.max()) or (self.reads_hidden and not np.isfinite(row).all()):
            self.error = not_finite(position)
            return
        self._take(position, row)
        self.done = position + 1

    @property
    def reusable(self) -> int | None:
        """How many ids of the prompt need not be run again for its sake; None: any number."""
        return None if self.done >= self.end else self.done

    @abstractmethod
    def _take(self, position: int, row: np.ndarray) -> None: ...


class PromptLogprobs(Collector):
    """Of each token of a prompt its log-probability after those before it, and the `count` likeliest in its place.

    `tokens` grow with the prompt. The first one has none, since nothing stands before it.
    """

    def __init__(self, ids: Sequence[int], count: int):
        super().__init__(0, len(ids) - 1)
        self._ids, self._count = ids, count
        self.tokens = [Token(ids[0])]

    def _take(self, position: int, row: np.ndarray) -> None:
        self.tokens.append(token_of(row, self._ids[position + 1], self._count))

    def wish(self, position: int) -> Wanted | None:
        """The likeliest, and one more: the token that follows is lifted, so that it is among them."""
        return Wanted(self._count + 1, bias={self._ids[position + 1]: _LIFT})

    def among(self, position: int, found: Candidates) -> Callable[[], None] | None:
        token = self._ids[position + 1]
        (places,) = np.nonzero(found.ids == token)
        if not places.size:
            return None
        logits = found.logits.astype(np.float64)
        logits[places[0]] -= _LIFT
        logprobs = (logits - found.log_sum).tolist()
        order = np.lexsort((found.ids, -logits))[: self._count].tolist()
        made = Token(token, logprobs[places[0]], tuple((int(found.ids[at]), logprobs[at]) for at in order))
        return lambda: self._put(position, made)

    def _put(self, position: int, token: Token) -> None:
        if position == self.done and self.error is None:
            self.tokens.append(token)
            self.done = position + 1


class Pooled(Collector):
    """Hidden states of a prompt, pooled: `result()` is float32 (D,), or (T, D) without pooling."""

    reads_hidden = True

    def __init__(self, length: int, pooling: str):
        super().__init__(length - 1 if pooling == "last" else 0, length)
        self._pooling, self._length = pooling, length
        self._sum = np.empty(0, np.float64)
        self._rows = np.empty((0, 0), np.float32)

    def _take(self, position: int, row: np.ndarray) -> None:
        if self._pooling == "mean":
            self._sum = self._sum + row if self._sum.size else row.astype(np.float64)
            return
        if not self._rows.size:
            self._rows = np.empty((1 if self._pooling == "last" else self._length, len(row)), np.float32)
        self._rows[0 if self._pooling == "last" else position] = row

    @property
    def reusable(self) -> int | None:
        return self._length - 1 if self._pooling == "last" else super().reusable

    def result(self) -> np.ndarray:
        """After the whole prompt has been run."""
        if self._pooling == "mean":
            return (self._sum / self._length).astype(np.float32)
        return self._rows[0] if self._pooling == "last" else self._rows


def collector_of(ids: Sequence[int], logprobs: int, pooling: str | None) -> Collector | None:
    """What a request wants collected. Raises OptionError."""
    if pooling is not None:
        if pooling not in POOLINGS:
            raise OptionError(f"`pooling` is {pooling!r}; it must be one of {', '.join(POOLINGS)}")
        if logprobs:
            raise OptionError("a request gives either hidden states or log-probabilities of its prompt, not both")
        return Pooled(len(ids), pooling)
    if isinstance(logprobs, bool) or not isinstance(logprobs, int) or not 0 <= logprobs <= MOST_LOGPROBS:
        raise OptionError(f"`prompt_logprobs` is {logprobs!r}; it must be an integer from 0 to {MOST_LOGPROBS}")
    return PromptLogprobs(ids, logprobs) if logprobs else None
