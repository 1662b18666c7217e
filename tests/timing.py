"""Bounds of time that hold on a machine whose cores others use as well."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

TRIES = 5
P = ParamSpec("P")


class TooSlow(AssertionError):
    """What took longer than its bound; it may have waited for a core."""


def in_time(seconds: float, bound: float) -> None:
    """Raises TooSlow unless it took less than `bound` seconds."""
    if seconds >= bound:
        raise TooSlow(f"{seconds:.3f} s, not less than {bound:g} s")


def timely(test: Callable[P, None]) -> Callable[P, None]:
    """Makes a test whose bounds of `in_time` must hold in one of some tries, and everything else in each. A try begins with the
    same fixtures and has to leave nothing running when it is too slow."""

    @functools.wraps(test)
    def tried(*given: P.args, **named: P.kwargs) -> None:
        for left in reversed(range(TRIES)):
            try:
                return test(*given, **named)
            except TooSlow:
                if not left:
                    raise

    return tried
