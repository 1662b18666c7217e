"""How much a template may do: time, steps, and the size of what it builds. Every hook of the sandbox asks here first."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain
from typing import Any

from lacewing.errors import TemplateError

MAX_COUNT = 100_000  # numbers given to filters and methods: widths, repetitions, lengths of ranges
MAX_INTEGER_BITS = 1024
MAX_NODES = 1_000_000  # items of a container, with those of the containers in it
MAX_TOTAL = 256 << 20  # characters of all strings that one rendering builds
COUNTING = ("batch", "slice", "round", "center", "ljust", "rjust", "zfill", "indent")  # these take a count
_LOOKING = ("is", "find", "rfind", "index", "rindex", "count", "startswith", "endswith")
_NODE = 16  # what an item costs besides its characters


class Budget:
    """What is left for one rendering. `seconds` of wall time, `size` characters for any one string, the result included."""

    def __init__(self, *, seconds: float, size: int, mutable: bool = False):
        self._seconds, self.size = seconds, size
        self._deadline = time.monotonic() + seconds
        self._steps = 0
        self._left = MAX_TOTAL + 16 * size
        # Containers cannot change in the immutable sandbox, so each is weighed once; keeping it keeps its id from reuse.
        self._weights: dict[int, tuple[Any, int]] | None = None if mutable else {}

    def tick(self) -> None:
        """One step: a loop's turn, a call, a filter. TemplateError once the time is over."""
        self._steps += 1
        if self._steps & 31 == 0:
            self.check_time()

    def check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise TemplateError(f"it took more than {self._seconds:g} s")

    def string(self, size: int) -> None:
        """A string of `size` characters is about to be built."""
        self._left -= size
        if size > self.size or self._left < 0:
            raise TemplateError(f"it builds a text of more than {self.size} characters")
        if size > 4096:
            self.check_time()

    def count(self, numbers: Iterable[Any]) -> None:
        """Numbers that an operation takes as a width, count or length."""
        for number in numbers:
            if isinstance(number, int) and abs(number) > MAX_COUNT:
                raise TemplateError(f"it uses the number {str(number)[:20]} as a width or count; {MAX_COUNT} is the most")

    def container(self, value: Any) -> None:
        """A list, tuple or dict was built; its weight is that of everything in it, as often as it occurs."""
        if isinstance(value, (list, tuple, dict)):
            self._left -= _NODE * len(value)
            if len(value) > 256:
                self.check_time()
            if self.weight(value) > MAX_NODES * _NODE + 16 * self.size or self._left < 0:
                raise TemplateError("it builds a list that is too large")

    def weight(self, value: Any) -> int:
        """Characters in it and a few for each item, as often as it occurs; counted up to the most that is allowed."""
        if isinstance(value, str):
            return _NODE + len(value)
        if not isinstance(value, (list, tuple, dict)):
            return _NODE
        if self._weights is not None and id(value) in self._weights:
            return self._weights[id(value)][1]
        self.tick()
        total = _NODE
        for item in chain.from_iterable(value.items()) if isinstance(value, dict) else value:
            total += self.weight(item)
            if total > MAX_NODES * _NODE + 16 * self.size:
                break
        if self._weights is not None:
            self._weights[id(value)] = (value, total)
        return total


_current: ContextVar[Budget | None] = ContextVar("template_budget", default=None)


def current() -> Budget:
    """The budget of the rendering that runs in this thread; a short one of its own for constants folded while compiling."""
    return _current.get() or Budget(seconds=1.0, size=1 << 20)


@contextmanager
def spending(budget: Budget) -> Iterator[Budget]:
    """`with spending(budget):` makes it the current one."""
    token = _current.set(budget)
    try:
        yield budget
    finally:
        _current.reset(token)


def check_growth(name: str, given: tuple[Any, ...]) -> None:
    """Refuses an operation on strings whose result would be far larger than what it is given, before it runs.

    `name` is that of a filter or method; "format" is the filter and `%`, "format_map" is `str.format`.
    """
    text, *rest = given
    budget = current()
    if name.startswith(_LOOKING):
        return budget.check_time()
    if name in COUNTING:
        budget.count(rest)
    size, longest = _size(text), max(map(_size, rest), default=0)
    numbers = max((abs(value) for value in rest if isinstance(value, int)), default=0)
    if name == "replace":
        old = rest[0] if rest and isinstance(rest[0], str) else ""
        size += (str.count(text, old) if isinstance(text, str) else size + 1) * longest
    elif name in ("format", "format_map"):
        check_layout(str(text), braces=name == "format_map")
        size += (str(text).count("{") + str(text).count("%")) * (sum(map(_size, rest)) + numbers)
    elif name == "indent":
        size += (str(text).count("\n") + 1) * max(longest, numbers, 4)
    elif name in ("escape", "xmlattr"):
        size *= 6
    elif name == "urlencode":
        size *= 3 if str(text).isascii() else 12
    elif name in ("center", "ljust", "rjust", "zfill"):
        size += numbers
    budget.string(size)


def check_layout(layout: str, braces: bool) -> None:
    """Refuses widths of six and more digits, and widths taken from arguments, in a format of `str.format` or of `%`."""
    if re.search(r"\d{6}", layout):
        raise TemplateError("it formats with a width of more than five digits")
    if re.search(r"\{[^{}]+\{" if braces else r"%[^%a-zA-Z]*\*", layout):
        raise TemplateError("it formats with a width from an argument")


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    return 24 if value is None or isinstance(value, (int, float)) else 8 * current().weight(value)
