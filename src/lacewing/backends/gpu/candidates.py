"""The largest logits of a row as a device brings them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lacewing.backends.batch import Candidates, Wanted
from lacewing.backends.choice import nothing_allowed
from lacewing.errors import NumericError

WANTED = 64  # of a row, at most
BROKEN = 2**32 - 1  # id of a logit that is NaN or infinite
NOTHING = BROKEN - 1  # where no logit is above minus infinity


def broken_logits() -> NumericError:
    return NumericError("the model produced NaN or infinite logits", suspect=True, advice=", or try `backend='reference'`")


def candidates(words: np.ndarray, wanted: Sequence[Wanted]) -> list[Candidates]:
    """Of each row what a device brings, uint32: (R, WANTED) pairs of a value and an id, then (R, parts) pairs of the largest value
    and the sum of exponentials above it.

    Raises NumericError for broken logits, OptionError for a mask that allows nothing.
    """
    rows = len(wanted)
    best, totals = words[: 2 * WANTED * rows].reshape(rows, WANTED, 2), words[2 * WANTED * rows :].reshape(rows, -1, 2)
    logits, ids = np.ascontiguousarray(best[:, :, 0]).view(np.float32), best[:, :, 1].astype(np.int64)
    found = (ids < NOTHING).sum(axis=1).tolist()  # a small vocabulary has fewer
    if (ids == BROKEN).any() or any(not count and each.mask is None for count, each in zip(found, wanted, strict=True)):
        raise broken_logits()
    if not all(found):
        raise nothing_allowed()
    largest, sums = (np.ascontiguousarray(totals[:, :, index]).view(np.float32).astype(np.float64) for index in (0, 1))
    top = largest.max(axis=1)
    log_sums = (top + np.log((sums * np.exp(largest - top[:, None])).sum(axis=1))).tolist()
    counts = [min(count, each.count) for count, each in zip(found, wanted, strict=True)]
    return [Candidates(ids[row, :count], logits[row, :count], log_sums[row]) for row, count in enumerate(counts)]
