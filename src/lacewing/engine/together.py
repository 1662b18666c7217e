"""The usual choices, the largest logit or one of the top-k, for many sequences at once: NumPy's calls cost more than their work."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from lacewing.backends.batch import Candidates
from lacewing.backends.choice import RowMaxima, top_k_of_rows
from lacewing.engine.sampling import Sampler, Token

Rows = Sequence[np.ndarray] | np.ndarray  # (V,) each, or (N, V)
FEW = 4  # sequences, up to which it pays to choose one by one


def pick_together(samplers: Sequence[Sampler], found: Sequence[Candidates]) -> dict[int, Token]:
    """What `Sampler.pick_among` gives, to the bit, by the index of those who want nothing special; the others are left out."""
    known = [len(each.ids) for each in found]
    tokens: dict[int, Token] = {}
    for count, members in _alike(samplers, known).items():
        places = _places([samplers[index] for index in members], np.stack([found[index].logits[:count] for index in members]))
        tokens |= {index: Token(int(found[index].ids[place])) for index, place in zip(members, places, strict=True)}
    return tokens


def pick_rows_together(samplers: Sequence[Sampler], rows: Rows, maxima: RowMaxima | None = None) -> dict[int, Token]:
    """The same of what `Sampler.pick` gives of whole rows, float32 (V,) each; rows that are no numbers are left out.

    `maxima`: of these rows, where the device has found them.
    """
    largest = [index for index, sampler in enumerate(samplers) if sampler.takes_largest]
    best = None if maxima is None else maxima.ids.tolist()
    if best is not None:
        tokens = {index: Token(best[index]) for index in largest if best[index] >= 0}
    elif len(largest) == len(samplers) and isinstance(rows, np.ndarray):
        return _largest_of_all(rows)
    else:
        tokens = _largest(largest, rows)
    if len(samplers) - len(largest) <= FEW:
        return tokens
    sound = [each >= 0 for each in best] if best is not None else [math.isfinite(float(row.max())) for row in rows]
    known = [0 if index in tokens or not sound[index] else len(row) for index, row in enumerate(rows)]
    for count, members in _alike(samplers, known).items():
        if maxima is None:
            ids = top_k_of_rows([rows[index] for index in members], count)
        else:
            ids = [maxima.top_k(index, rows[index], count) for index in members]
        logits = np.stack([rows[index][each] for index, each in zip(members, ids, strict=True)])
        places = _places([samplers[index] for index in members], logits)
        tokens |= {index: Token(int(each[place])) for index, each, place in zip(members, ids, places, strict=True)}
    return tokens


def _largest_of_all(rows: np.ndarray) -> dict[int, Token]:
    """`_largest` of (N, V)."""
    return {index: Token(token) for index, token in enumerate(rows.argmax(axis=1).tolist()) if math.isfinite(rows[index, token])}


def _largest(indices: Sequence[int], rows: Rows) -> dict[int, Token]:
    """Of those who take the largest logit, the lowest id among equals."""
    found = {}
    for index in indices:
        best = int(rows[index].argmax())  # the first NaN, if there is one
        if math.isfinite(rows[index][best]):
            found[index] = Token(best)
    return found


def _alike(samplers: Sequence[Sampler], known: Sequence[int]) -> dict[int, list[int]]:
    """By the number of candidates, at most those that are known, more than a few who draw one of so many."""
    alike: dict[int, list[int]] = defaultdict(list)
    for index, (sampler, most) in enumerate(zip(samplers, known, strict=True)):
        if 0 < sampler.plain_count <= most:
            alike[sampler.plain_count].append(index)
    return {count: members for count, members in alike.items() if len(members) > FEW}


def _places(samplers: Sequence[Sampler], logits: np.ndarray) -> list[int]:
    """`Sampler._draw` of each row of (N, k), largest first: what comes out is always a beginning of the row."""
    options = [sampler.sampling for sampler in samplers]
    top, size = logits[:, :1], logits.shape[1]
    with np.errstate(over="ignore", under="ignore"):
        mass = np.exp(logits - top)
        target = np.array([each.top_p for each in options]) * mass.sum(axis=1, dtype=np.float64)
        kept = 1 + (np.cumsum(mass, axis=1, dtype=np.float64) < target[:, None]).sum(axis=1)
        kept[[each.top_p >= 1 for each in options]] = size
        least = np.array([math.log(each.min_p) if each.min_p > 0 else -math.inf for each in options], np.float32)
        kept = np.minimum(np.minimum(kept, size), (logits >= top + least[:, None]).sum(axis=1))
        weights = np.exp((logits - top) / np.array([each.temperature for each in options], np.float64)[:, None])
        sums = np.cumsum(weights, axis=1)
    last = sums[np.arange(len(kept)), kept - 1]
    uniform = np.array([sampler.take_uniform() for sampler in samplers])
    places = (sums <= (uniform * last)[:, None]).sum(axis=1)
    found: list[int] = np.minimum(places, kept - 1).tolist()
    return found
