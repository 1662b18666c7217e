"""Marks within a text that comes in pieces: the first one of several, and how much of the end may become one."""

from __future__ import annotations

import re
from functools import lru_cache

Marks = tuple[str, ...]


def first_of(text: str, marks: Marks) -> tuple[int, str]:
    """Where the first mark is, and which: the longest of those that begin there. (-1, "") without any.

    Reads no further than to there, as a text may hold many.
    """
    found = _pattern(marks).search(text) if marks else None
    return (found.start(), found.group()) if found else (-1, "")


def partial(text: str, marks: Marks) -> int:
    """Characters at the end of a text that may be the beginning of a mark."""
    beginnings, longest = _beginnings(marks)
    return next((count for count in range(min(len(text), longest), 0, -1) if text[-count:] in beginnings), 0)


@lru_cache
def _pattern(marks: Marks) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True))))


@lru_cache
def _beginnings(marks: Marks) -> tuple[frozenset[str], int]:
    """All beginnings of marks that are not whole, and the length of the longest."""
    found = frozenset(mark[:count] for mark in marks for count in range(1, len(mark)))
    return found, max(map(len, found), default=0)
