"""What a person changes of the logits before a choice: biases and penalties. Among whole rows, or among a device's candidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from lacewing.backends.batch import Candidates
from lacewing.options import Sampling


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
    out[ids] = _penalised(out[ids], counts, repeat, presence, frequency)
    return out


def _penalised(logits: np.ndarray, counts: np.ndarray, repeat: float, presence: float, frequency: float) -> np.ndarray:
    """Of tokens that have occurred so often, (N,)."""
    scaled = np.where(logits > 0, logits / np.float32(repeat), logits * np.float32(repeat))
    return np.asarray(scaled - np.float32(frequency) * counts.astype(np.float32) - np.float32(presence))


class Adjustments:
    """The biases and penalties of one request.

    `none`: the raw logits decide. `penalises`: what was generated counts. `additive`: each token has one number to be added, so
    that a device can do it. `lowers`: else, whether no token gets likelier by it than its bias says.
    """

    def __init__(self, options: Sampling):
        self.bias: Mapping[int, float] = options.logit_bias
        self._penalties = (options.repeat_penalty, options.presence_penalty, options.frequency_penalty)
        self._window = options.repeat_window
        repeat, presence, frequency = self._penalties
        self.penalises = self._penalties != (1, 0, 0) and self._window > 0
        self.additive = not self.penalises or repeat == 1
        self.lowers = repeat >= 1 and presence >= 0 and frequency >= 0
        self.none = not self.bias and not self.penalises

    def added(self, history: Sequence[int]) -> Mapping[int, float]:
        """Of `additive` ones what is added to the logit of each token; of others the biases alone."""
        if not self.penalises or not self.additive:
            return self.bias
        _, presence, frequency = self._penalties
        found = {token: -presence - frequency * count for token, count in Counter(history[-self._window :]).items()}
        return {**found, **{token: bias + found.get(token, 0.0) for token, bias in self.bias.items()}}

    def row(self, row: np.ndarray, history: Sequence[int]) -> np.ndarray:
        """Whole logits (V,), adjusted; a copy if there is anything to do."""
        added = self.added(history)
        if added:
            row = add_bias(row, added)
        return row if self.additive or not history else penalise(row, history[-self._window :], *self._penalties)

    def candidates(self, found: Candidates, history: Sequence[int]) -> np.ndarray | None:
        """Of candidates to which `added` was added their adjusted logits, (N,) in their order; None: they are adjusted already."""
        if self.additive:
            return None
        counts = Counter(history[-self._window :])
        seen = np.array([token in counts for token in found.ids.tolist()], bool)
        out = found.logits.copy()
        numbers = np.array([counts[token] for token in found.ids[seen].tolist()], np.int64)
        out[seen] = _penalised(out[seen], numbers, *self._penalties)
        return out
