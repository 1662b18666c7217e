"""What kernels must know of the slots of a mixture to have missing experts read themselves, without leaving the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np


class PartTable(NamedTuple):
    """How experts are read, int64 all. `counts`: parts of each expert; `words` of each part: the descriptor of the file, where
    the part begins there, bytes that are asked for, bytes that must come, where they go in the slot, and whether the system is to
    forget them. `nbytes`: of an expert in all. `starts` (E, stacks): where each stack begins in the slot."""

    counts: np.ndarray
    words: np.ndarray  # (E, P, 6)
    nbytes: np.ndarray
    starts: np.ndarray


class Fetching(NamedTuple):
    """Of one mixture. Whoever computes may use and change all of it during a run while `ready` is 1, which the owner says.

    A slot that an expert is to come to: the expert that is there leaves `slot_of` (int32 (E,), -1: none) and all `addresses`, the
    slot is nobody's in `expert_in` (int32 (S,), -1: nobody's), the new expert is noted in `coming` (int64 (S,), -1: none), the
    number of its parts in `pending`, and 0 in `failed`. Once `pending` is 0 again and nothing has failed, it may be told of
    as there. The slot to take is a free one, else that of the lowest score, as of `weights/experts/policy.py`: `looked`,
    `frequency`, `history`, and the part of each that is left after a run, `kept`. `elsewhere` (bool): experts that go first.
    """

    ready: np.ndarray
    active: int
    counts: np.ndarray  # of the `ExpertSlots`, as `addresses`
    kept: np.ndarray  # float64 (2,)
    looked: np.ndarray  # int64 (1,)
    frequency: np.ndarray
    history: np.ndarray
    slot_of: np.ndarray
    expert_in: np.ndarray
    elsewhere: np.ndarray
    addresses: Mapping[str, np.ndarray]
    memory: np.ndarray  # int64 (S,): where the slots are
    coming: np.ndarray
    pending: np.ndarray
    failed: np.ndarray
    parts: PartTable
    counters: np.ndarray  # int64 (5,), added to: misses, reads, bytes, nanoseconds waited in all, and since the owner was asked
    threads: int  # that should read
    share: Callable[[], Callable[[], None] | None]  # keep files and memory until what it gives is called; None: they are closed
