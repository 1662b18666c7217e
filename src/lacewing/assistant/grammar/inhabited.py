"""Which of many things that need each other can be had at all: the least solution of and-or equations, in linear time."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


def inhabited(needs: Mapping[Name, Sequence[Sequence[Name]]]) -> set[Name]:
    """The names of which each group of what they need holds one that is inhabited itself.

    Such as rules that derive a finite text: of each symbol in a sequence, one of its alternatives.
    """
    missing = {name: len(groups) for name, groups in needs.items()}
    waiting: dict[Name, list[tuple[Name, int]]] = {}
    for name, groups in needs.items():
        for index, group in enumerate(groups):
            for each in group:
                waiting.setdefault(each, []).append((name, index))
    found = {name for name, count in missing.items() if not count}
    done: set[tuple[Name, int]] = set()
    todo = list(found)
    while todo:
        for place in waiting.get(todo.pop(), ()):
            if place in done:
                continue
            done.add(place)
            missing[place[0]] -= 1
            if not missing[place[0]]:
                found.add(place[0])
                todo.append(place[0])
    return found
