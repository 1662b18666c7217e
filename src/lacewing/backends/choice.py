"""The largest logits of a row, on the host: what a step does whose device does not choose by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
