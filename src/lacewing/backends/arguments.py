"""The checks that every backend makes on the arguments of a run."""

from __future__ import annotations

import numpy as np

from lacewing.backends.base import StepLimits
from lacewing.errors import OptionError


def check_run(
    tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, outputs: np.ndarray, vocab_size: int, limits: StepLimits
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The four as int32 arrays: (T,), (T,), (T,), (R,). Raises OptionError that names the first value out of range."""
    tokens = _integers("token", tokens, vocab_size)
    count = len(tokens)
    if not 1 <= count <= limits.chunk:
        raise OptionError(f"a run takes 1 to {limits.chunk} tokens, not {count}")
    slots, positions = _integers("slot", slots, limits.slots), _integers("position", positions, limits.context)
    if len(slots) != count or len(positions) != count:
        raise OptionError(f"{count} tokens came with {len(slots)} slots and {len(positions)} positions")
    return tokens, slots, positions, _integers("output row", outputs, count)


def _integers(what: str, values: np.ndarray, limit: int) -> np.ndarray:
    found = np.asarray(values)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise OptionError(f"{what}s must be a list of integers")
    outside = found[(found < 0) | (found >= limit)]
    if outside.size:
        raise OptionError(f"{what} {int(outside[0])} is out of range; there are {limit}")
    return np.ascontiguousarray(found, np.int32)
