"""Bounds of time that hold on a machine whose cores others use as well."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec

import psutil

TRIES = 5
IDLE = 0.25  # share of the cores' time; where more was left, nothing waited for a core
P = ParamSpec("P")


class TooSlow(AssertionError):
    """What took longer than its bound; it may have waited for a core."""


def in_time(seconds: float, bound: float) -> None:
    """Raises TooSlow unless it took less than `bound` seconds."""
    if seconds >= bound:
        raise TooSlow(f"{seconds:.3f} s, not less than {bound:g} s")


def idle_share(since: Any) -> float:
    """Of all cores' time since `psutil.cpu_times` said `since`."""
    spent = [now - then for now, then in zip(psutil.cpu_times(), since, strict=True)]
    return float((psutil.cpu_times().idle - since.idle) / max(1e-9, sum(spent)))


def timely(test: Callable[P, None]) -> Callable[P, None]:
    """Makes a test whose bounds of `in_time` must hold in one of some tries where others have the cores, in the first where cores
    were idle; and everything else in each. A try begins with the same fixtures and leaves nothing running when it is too slow."""

    @functools.wraps(test)
    def tried(*given: P.args, **named: P.kwargs) -> None:
        for left in reversed(range(TRIES)):
            before = psutil.cpu_times()
            try:
                return test(*given, **named)
            except TooSlow:
                if not left or idle_share(before) > IDLE:
                    raise

    return tried
