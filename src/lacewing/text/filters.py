"""The filters and functions that a chat template may use. All keep track of what a user wrote, and of the budget."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import wraps
from typing import Any

import jinja2
from jinja2.filters import FILTERS
from jinja2.runtime import Undefined
from jinja2.utils import Namespace, pass_context

from lacewing.errors import TemplateError
from lacewing.text.budget import current
from lacewing.text.provenance import from_user, join, mark, touched
from lacewing.text.vocabulary import words

# Filters that hand on what they are given, or give numbers; and filters that make new strings.
_HANDING = words(
    """abs attr batch count d default dictsort first float groupby int items last length list map max min reject rejectattr
    reverse round select selectattr slice sort unique wordcount"""
)
_COUNTING = words("batch slice round center ljust rjust zfill indent")
_SHOWN: tuple[type, ...] = (int, float, list, tuple, dict, type({}.keys()), type({}.values()), type({}.items()), range, Namespace)
_LOOKING = ("is", "find", "rfind", "index", "rindex", "count", "startswith", "endswith")
_MAKING = words("capitalize format indent lower replace string title trim truncate upper")


def filters() -> dict[str, Callable[..., Any]]:
    """All filters by name."""
    table: dict[str, Callable[..., Any]] = {name: _handing(name, FILTERS[name]) for name in _HANDING if name in FILTERS}
    table |= {name: _making(name, FILTERS[name]) for name in _MAKING}
    table |= {"tojson": _making("tojson", _tojson), "from_json": _from_json, "join": _join, "sum": _sum}
    table |= dict.fromkeys(("e", "escape", "forceescape"), _making("escape", _escape)) | {"safe": as_string}
    return table | {"_each": _each, "_concat": _concat, "_box": _box}


def functions(now: Callable[[], datetime]) -> dict[str, Any]:
    """The global names of a template."""

    def strftime_now(layout: str) -> str:
        return now().strftime(str(layout)[:200])

    return {"range": _range, "dict": dict, "namespace": SafeNamespace, "raise_exception": _raise, "strftime_now": strftime_now}


class Refusal(jinja2.TemplateError):
    """`raise_exception` was called: the template refuses the conversation."""


class SafeNamespace(Namespace):
    """Jinja's namespace with a short repr: the original writes out all it holds, which can be exponentially much."""

    def __repr__(self) -> str:
        return "<namespace>"


class Each:
    """What a loop iterates over: counts its turns. Keeps the length, for `loop.last` and the like."""

    def __init__(self, value: Any):
        self._value = value

    def __len__(self) -> int:
        return len(self._value)

    def __iter__(self) -> Iterator[Any]:
        tick = current().tick
        for item in self._value:
            tick()
            yield item


def _carry(original: Any, wrapper: Callable[..., Any]) -> Callable[..., Any]:
    """Keeps what Jinja marked on a filter: whether it wants the context or environment first."""
    return wraps(original)(wrapper)


def _own_arguments(original: Any) -> int:
    """1 where Jinja passes its context, evaluation context or environment before the value."""
    return int(getattr(original, "jinja_pass_arg", None) is not None)


def _handing(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    skip = _own_arguments(original)

    def run(*args: Any, **options: Any) -> Any:
        budget = current()
        budget.tick()
        if name in _COUNTING:
            budget.count((*args[skip + 1 :], *options.values()))
        result = original(*args, **options)
        budget.container(result)
        return result

    return _carry(original, run)


def _making(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    skip = _own_arguments(original)

    def run(*args: Any, **options: Any) -> Any:
        budget = current()
        budget.tick()
        given = (*args[skip:], *options.values())
        for value in given:
            budget.container(value)
        check_growth(name, given)
        result = original(*args, **options)
        if isinstance(result, str):
            budget.string(len(result))
        return mark(result) if touched(given) else str(result)

    return _carry(original, run)


def check_growth(name: str, given: tuple[Any, ...]) -> None:
    """Refuses an operation on strings whose result would be far larger than what it is given, before it runs.

    `name` is that of a filter or method; "format" is the filter and `%`, "format_map" is `str.format`.
    """
    text, *rest = given
    budget = current()
    if name.startswith(_LOOKING):
        return budget.check_time()
    if name in _COUNTING:
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
    elif name == "escape":
        size *= 5
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
    return 24 if value is None or isinstance(value, (int, float)) else 8 * current()._weight(value)


def _join(value: Any, d: Any = "", attribute: str | int | None = None) -> str:
    budget = current()
    separator, items = as_string(d), list[str]()
    for item in Each(value):
        if attribute is not None:
            item = item.get(attribute, "") if isinstance(item, dict) else ""
        items.append(as_string(item))
    budget.string(sum(map(len, items)) + len(separator) * len(items))
    return join(items, separator)


def _sum(value: Any, attribute: str | int | None = None, start: float = 0) -> float:
    total = start
    for item in Each(value):
        number = item[attribute] if attribute is not None else item
        if not isinstance(number, (int, float)) or not isinstance(total, (int, float)):
            raise TypeError("sum takes numbers only")
        total += number
    return total


def as_string(value: Any) -> str:
    """What `{{ value }}` writes; of anything but strings and numbers all of it counts as the user's."""
    if isinstance(value, (str, Undefined)):
        return str(value)
    budget = current()
    budget.container(value)
    text = str(value) if value is None or isinstance(value, _SHOWN) else f"<{type(value).__name__}>"
    budget.string(len(text))
    return mark(text) if touched((value,)) else text


def _escape(value: Any) -> str:
    return html.escape(as_string(value)).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as the training code of models writes it: no HTML escapes."""
    if isinstance(indent, int) and indent > 16:
        raise TemplateError("it writes JSON with an indent of more than 16")
    separators = tuple(map(str, separators)) if separators else None
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _from_json(value: Any) -> Any:
    return from_user(json.loads(str.__str__(value)))


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    current().count([len(numbers)])
    return numbers


def _raise(message: str = "") -> None:
    raise Refusal(str.__str__(message))


@pass_context
def _each(context: Any, value: Any) -> Any:
    """Put by the compiler around what a loop iterates over."""
    return value if isinstance(value, Undefined) else Each(value)


@pass_context
def _concat(context: Any, items: list[Any]) -> str:
    """Put by the compiler in the place of `a ~ b`."""
    texts = [as_string(item) for item in items]
    current().string(sum(map(len, texts)))
    return join(texts)


@pass_context
def _box(context: Any, value: Any) -> Any:
    """Put by the compiler around lists, tuples and dicts that a template writes."""
    budget = current()
    budget.tick()
    budget.container(value)
    return value
