"""The largest logits of a row, on the host: what a step does whose device does not choose by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lacewing.backends.batch import Candidates, Wanted
from lacewing.errors import NumericError, OptionError

_ROWS = 64


def top_k(logits: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k largest of (V,), largest first, ties to the lowest index."""
    k = min(k, len(logits))
    columns = len(logits) // _ROWS
    # The k-th largest of the maxima of disjoint groups is a bound that at least k values reach, found in one pass.
    pool = logits[: columns * _ROWS].reshape(_ROWS, columns).max(axis=0) if k * 2 < columns else logits
    bound = np.partition(pool, len(pool) - k)[len(pool) - k]
    candidates = np.flatnonzero(logits >= bound)
    order = np.argsort(-logits[candidates], kind="stable")
    return candidates[order[:k]]


def top_k_of_rows(rows: Sequence[np.ndarray], k: int) -> list[np.ndarray]:
    """`top_k` of each row, all (V,); quicker together than one by one."""
    columns = len(rows[0]) // _ROWS
    if k * 2 >= columns:
        return [top_k(row, k) for row in rows]
    pools = np.stack([row[: columns * _ROWS].reshape(_ROWS, columns).max(axis=0) for row in rows])
    bounds = np.partition(pools, columns - k, axis=1)[:, columns - k]
    candidates = [np.flatnonzero(row >= bound) for row, bound in zip(rows, bounds, strict=True)]
    return [each[np.argsort(-row[each], kind="stable")[:k]] for row, each in zip(rows, candidates, strict=True)]


@dataclass(frozen=True)
class RowMaxima:
    """What a device has seen of rows of logits (R, V) while it made them.

    `ids` int64 (R,): the largest of each, the lowest among equals; -1: one is NaN, or the largest is infinite. `tops` float32
    (R, G): the maxima of groups. Each piece of `lanes * size` logits of a row has `lanes` groups: every `lanes`-th of it.
    """

    ids: np.ndarray
    tops: np.ndarray
    lanes: int
    size: int

    def of(self, rows: slice | Sequence[int]) -> RowMaxima:
        """Of some of the rows."""
        return replace(self, ids=self.ids[rows], tops=self.tops[rows])

    def top_k(self, index: int, row: np.ndarray, k: int) -> np.ndarray:
        """As the function of that name gives them of this row, (V,), which has no NaN, without a look at most of it."""
        tops = self.tops[index]
        if k * 2 >= len(tops):
            return top_k(row, k)
        bound = np.partition(tops, len(tops) - k)[len(tops) - k]  # that k groups reach, and so k logits
        groups = np.flatnonzero(tops >= bound)
        ids = ((groups + groups // self.lanes * self._skipped)[:, None] + self._within).reshape(-1)
        ids = ids[ids < len(row)]
        logits = row[ids]
        kept = logits >= bound
        ids, logits = ids[kept], logits[kept]
        found: np.ndarray = ids[np.lexsort((ids, -logits))[:k]]
        return found

    @property
    def _skipped(self) -> int:
        """Ids from the end of a register to where the next piece begins."""
        return self.lanes * (self.size - 1)

    @cached_property
    def _within(self) -> np.ndarray:
        """Where the logits of a group stand, from its first on."""
        return np.arange(0, self.lanes * self.size, self.lanes)


def log_sum_exp(logits: np.ndarray) -> float:
    """Natural logarithm of the sum of the exponentials of (V,)."""
    top = logits.max()
    return float(top) + math.log(float(np.exp(logits - top).sum(dtype=np.float64)))


def candidates_of(row: np.ndarray, wanted: Wanted) -> Candidates:
    """What is wanted, by a settled wish, of a row of raw logits, float32 (V,).

    Raises NumericError for NaN or infinite logits, OptionError for a mask that allows nothing or has another size.
    """
    if not math.isfinite(float(row.max())):  # max() passes NaN on
        raise NumericError("the model produced NaN or infinite logits", suspect=True)
    adjusted = row
    if wanted.bias:
        adjusted = row.copy()
        adjusted[list(wanted.bias)] += np.fromiter(wanted.bias.values(), np.float32, len(wanted.bias))
    if isinstance(wanted.mask, np.ndarray):
        adjusted = np.where(allowed(wanted.mask, len(row)), adjusted, np.float32(-np.inf))
        if not np.isfinite(adjusted.max()):
            raise nothing_allowed()
    if wanted.count == 1:
        ids = np.array([int(adjusted.argmax())])
    else:
        ids = top_k(adjusted, wanted.count)
        ids = ids[np.isfinite(adjusted[ids])]
    with np.errstate(under="ignore"):
        return Candidates(ids.astype(np.int64), adjusted[ids], log_sum_exp(row))


def nothing_allowed() -> OptionError:
    return OptionError("the mask of the next token allows none")


def allowed(mask: np.ndarray, vocab_size: int) -> np.ndarray:
    """bool (V,): the bits of a mask. Raises OptionError for a mask of another size."""
    check_mask(mask, vocab_size)
    return np.unpackbits(mask.view(np.uint8), bitorder="little")[:vocab_size].view(bool)


def check_mask(mask: np.ndarray, vocab_size: int) -> None:
    """Raises OptionError for a mask of another size."""
    if mask.dtype != np.uint32 or mask.size != -(-vocab_size // 32):
        raise OptionError(f"a mask of {vocab_size} tokens has {-(-vocab_size // 32)} words of 32 bits")
