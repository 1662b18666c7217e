"""The filters and functions that a chat template may use. All keep track of what a user wrote, and of the budget."""

from __future__ import annotations

import html
import json
import pprint
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import wraps
from typing import Any

import jinja2
from jinja2.filters import FILTERS
from jinja2.runtime import Undefined
from jinja2.utils import Cycler, Joiner, Namespace, pass_context, pass_environment, pass_eval_context

from lacewing.errors import TemplateError
from lacewing.text.budget import COUNTING, check_growth, current
from lacewing.text.provenance import as_string, from_user, joined, mark, printf, touched, writable
from lacewing.text.vocabulary import words

# Filters that hand on what they are given, or give numbers; and filters that make new strings.
_HANDING = words(
    """abs attr batch count d default dictsort first float groupby int items last length list map max min reject rejectattr
    reverse round select selectattr slice sort unique wordcount"""
)
_MAKING = words("capitalize center filesizeformat indent lower replace string title trim truncate upper")
_MOST_PRINTED = 1 << 18  # what `pprint` may weigh: it writes each level anew to see whether it fits a line
_MOST_WRAPPED = 1 << 17  # characters of a line for `wordwrap`
_MOST_MOVED = 1 << 33  # characters that `striptags` may move: older versions of the library move the rest at each tag


def filters() -> dict[str, Callable[..., Any]]:
    """All filters by name: Jinja's, but for `random`, `urlize` and those that HTML alone needs."""
    table: dict[str, Callable[..., Any]] = {name: _handing(name, FILTERS[name]) for name in _HANDING if name in FILTERS}
    table |= {name: _making(name, FILTERS[name], texts=True) for name in _MAKING}
    table |= {name: _making(name, own) for name, own in _OWN.items()}
    table |= dict.fromkeys(("e", "escape", "forceescape"), _making("escape", _escape))
    table |= {"from_json": _from_json, "join": _join, "sum": _sum, "safe": as_string}
    return table | {"_each": _each, "_concat": _concat, "_box": _box}


def functions(now: Callable[[], datetime]) -> dict[str, Any]:
    """The global names of a template."""

    def strftime_now(layout: str) -> str:
        return now().strftime(as_string(layout)[:200])

    own = {"range": _range, "raise_exception": _raise, "strftime_now": strftime_now}
    return {**own, "dict": dict, "namespace": SafeNamespace, "cycler": Cycler, "joiner": Joiner}


class Refusal(jinja2.TemplateError):
    """`raise_exception` was called: the template refuses the conversation."""


class SafeNamespace(Namespace):
    """Jinja's namespace with a short repr: the original writes out all it holds, which can be exponentially much."""

    def __repr__(self) -> str:
        return "<Namespace>"


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


def _skipped(original: Callable[..., Any]) -> int:
    """1 where Jinja passes its context, evaluation context or environment before the value."""
    return int(getattr(original, "jinja_pass_arg", None) is not None)


def _handing(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)  # with what Jinja marked on it: whether it wants the context or environment first
    def run(*args: Any, **options: Any) -> Any:
        budget = current()
        budget.tick()
        if name in COUNTING:
            budget.count((*args[_skipped(original) + 1 :], *options.values()))
        result = original(*args, **options)
        budget.container(result)
        return result

    return run


def _making(name: str, original: Callable[..., Any], texts: bool = False) -> Callable[..., Any]:
    """`texts`: of a filter that writes its arguments as Python would, which then get the text that we would write."""
    skip = _skipped(original)

    @wraps(original)
    def run(*args: Any, **options: Any) -> Any:
        budget = current()
        budget.tick()
        given = (*args[skip:], *options.values())
        for value in given:
            budget.container(value)
        check_growth(name, given)
        if texts:
            args = (*args[:skip], *map(writable, args[skip:]))
            options = {key: writable(value) for key, value in options.items()}
        result = original(*args, **options)
        if isinstance(result, str):
            budget.string(len(result))
        return mark(result) if touched(given) else str(result)

    return run


def _join(value: Any, d: Any = "", attribute: str | int | None = None) -> str:
    items = Each(value)
    picked = (item.get(attribute, "") if isinstance(item, dict) else "" for item in items)
    return joined(items if attribute is None else picked, as_string(d))


def _sum(value: Any, attribute: str | int | None = None, start: float = 0) -> float:
    total = start
    for item in Each(value):
        number = item[attribute] if attribute is not None else item
        if not isinstance(number, (int, float)) or not isinstance(total, (int, float)):
            raise TypeError("sum takes numbers only")
        total += number
    return total


def _format(layout: Any, *args: Any, **options: Any) -> str:
    return printf(as_string(layout), options or args)


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


def _pprint(value: Any) -> str:
    if current().weight(value) > _MOST_PRINTED:
        raise TemplateError("it prints a value that is too large")
    return str(pprint.pformat(_data(value)))


def _data(value: Any) -> Any:
    """A copy of plain data, in which other objects are the text that we write for them."""
    if isinstance(value, dict):
        return {_data(key): _data(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_data, value)) if type(value) in (list, tuple) else tuple(map(_data, value))
    return str.__str__(value) if isinstance(value, str) else writable(value)


@pass_environment
def _wordwrap(
    environment: Any,
    value: Any,
    width: int = 79,
    break_long_words: bool = True,
    wrapstring: str | None = None,
    break_on_hyphens: bool = True,
) -> str:
    """Line by line, as a line's time grows with the square of what has no place to break it."""
    budget, lines = current(), []
    wrapstring = environment.newline_sequence if wrapstring is None else as_string(wrapstring)
    for line in str.splitlines(as_string(value)):
        longest = max((len(run) for run in re.findall(r"\s+|\S+", line)), default=0)
        if len(line) > _MOST_WRAPPED or longest**2 > max(width, 1) << 27:
            raise TemplateError("it wraps a line that is too long")
        budget.string(len(line) * (1 + len(wrapstring)))
        budget.check_time()
        lines.append(FILTERS["wordwrap"](environment, line, width, break_long_words, wrapstring, break_on_hyphens))
    return wrapstring.join(lines)


def _striptags(value: Any) -> str:
    text = as_string(value)
    if text.count("<") * len(text) > _MOST_MOVED:
        raise TemplateError("it strips tags from a text that is too long")
    return str(FILTERS["striptags"](text))


def _urlencode(value: Any) -> str:
    if isinstance(value, (dict, list, tuple)):
        pairs = value.items() if isinstance(value, dict) else value
        value = [(as_string(key), as_string(inner)) for key, inner in pairs]
    return str(FILTERS["urlencode"](writable(value) if not isinstance(value, list) else value))


@pass_eval_context
def _xmlattr(context: Any, value: dict[str, Any], autospace: bool = True) -> str:
    shown = {as_string(key): writable(inner) for key, inner in value.items()}
    return str(FILTERS["xmlattr"](context, shown, autospace))


_OWN: dict[str, Callable[..., Any]] = {
    "tojson": _tojson, "pprint": _pprint, "wordwrap": _wordwrap, "striptags": _striptags, "urlencode": _urlencode,
    "xmlattr": _xmlattr, "format": _format,
}  # fmt: skip


def _from_json(value: Any) -> Any:
    return from_user(json.loads(str.__str__(value)))


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    current().count([len(numbers)])
    return numbers


def _raise(message: str = "") -> None:
    raise Refusal(str.__str__(as_string(message)))


@pass_context
def _each(context: Any, value: Any) -> Any:
    """Put by the compiler around what a loop iterates over."""
    return value if isinstance(value, Undefined) else Each(value)


@pass_context
def _concat(context: Any, items: list[Any]) -> str:
    """Put by the compiler in the place of `a ~ b`."""
    return joined(items)


@pass_context
def _box(context: Any, value: Any) -> Any:
    """Put by the compiler around lists, tuples and dicts that a template writes."""
    budget = current()
    budget.tick()
    budget.container(value)
    return value
