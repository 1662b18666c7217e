"""Strings that remember which of their characters a user wrote, so that these never become control tokens.

Templates trim, split and join what users wrote before it reaches the prompt. A `Text` keeps its spans of user characters
through such operations; where it cannot follow one, the whole result counts as the user's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, SupportsIndex

from jinja2.runtime import Undefined

from lacewing.text.budget import check_growth, current

Spans = tuple[tuple[int, int], ...]

_PLAIN = (str, int, float, type(None), Undefined)  # what writes itself
_VIEWS: tuple[type[Any], ...] = (type({}.keys()), type({}.values()), type({}.items()))


class Text(str):
    """A string with `spans`: sorted (start, stop) ranges of the characters that come from a user. By default all of them."""

    __slots__ = ("spans",)
    spans: Spans

    def __new__(cls, value: object = "", spans: Spans | None = None) -> Text:
        self = super().__new__(cls, str.__str__(value) if isinstance(value, str) else str(value))
        self.spans = (((0, len(self)),) if len(self) else ()) if spans is None else spans
        return self

    def __str__(self) -> str:
        return self

    def __getitem__(self, key: SupportsIndex | slice) -> Text:
        value = str.__getitem__(self, key)
        start, _, step = (key if isinstance(key, slice) else _one(key, len(self))).indices(len(self))
        return self._cut(value, start) if step == 1 else self._like(value)

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def _cut(self, value: str, start: int) -> Text:
        """`value` is the part of this text from `start` on; its spans move along."""
        stop = start + len(value)
        spans = tuple((max(a, start) - start, min(b, stop) - start) for a, b in self.spans if a < stop and b > start)
        return Text(value, spans)

    def _like(self, value: str) -> Text:
        """A changed copy: of the same length it keeps the spans, otherwise it is all the user's."""
        whole = not self.spans or self.spans == ((0, len(self)),)
        return Text(value, self.spans if len(value) == len(self) and not whole else None if self.spans else ())

    def _parts(self, values: list[str]) -> list[str]:
        """Spans for parts that follow one another in this text."""
        parts: list[str] = []
        at = 0
        for value in values:
            at = str.find(self, value, at)
            parts.append(self._cut(value, at))
            at += len(value)
        return parts

    def strip(self, chars: str | None = None, /) -> Text:
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: str | None = None, /) -> Text:
        value = str.lstrip(self, chars)
        return self._cut(value, len(self) - len(value))

    def rstrip(self, chars: str | None = None, /) -> Text:
        return self._cut(str.rstrip(self, chars), 0)

    def removeprefix(self, prefix: str, /) -> Text:
        return self[len(prefix) :] if prefix and str.startswith(self, prefix) else self

    def removesuffix(self, suffix: str, /) -> Text:
        return self[: len(self) - len(suffix)] if suffix and str.endswith(self, suffix) else self

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._separated(str.split(self, sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._separated(str.rsplit(self, sep, maxsplit), sep)

    def _separated(self, values: list[str], sep: str | None) -> list[str]:
        if sep is None:
            return self._parts(values)
        parts: list[str] = []
        at = 0
        for value in values:
            parts.append(self._cut(value, at))
            at += len(value) + len(sep)
        return parts

    def splitlines(self, keepends: bool = False) -> list[str]:
        lines = str.splitlines(self, True)
        parts = self._parts(lines)
        return parts if keepends else [part[: len(str.splitlines(part)[0])] for part in parts]

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        a, b, c = self._parts(list(str.partition(self, sep)))
        return a, b, c

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        a, b, c = str.rpartition(self, sep)
        return self._cut(a, 0), self._cut(b, len(a)), self._cut(c, len(a) + len(b))

    def replace(self, old: str, new: str, /, count: SupportsIndex = -1) -> Text:
        if not old:
            return Text(str.replace(self, old, new, count))
        return as_text(join(self.split(old, count), new))

    def join(self, items: Iterable[str], /) -> Text:
        return as_text(join(list(items), self))

    def lower(self) -> Text:
        return self._like(str.lower(self))

    def upper(self) -> Text:
        return self._like(str.upper(self))

    def title(self) -> Text:
        return self._like(str.title(self))

    def capitalize(self) -> Text:
        return self._like(str.capitalize(self))

    def segments(self) -> list[tuple[str, bool]]:
        """The text as (part, trusted) in order; parts outside the spans are trusted."""
        found: list[tuple[str, bool]] = []
        at = 0
        plain = str.__str__(self)
        for start, stop in self.spans:
            found += [(str.__getitem__(plain, slice(at, start)), True), (str.__getitem__(plain, slice(start, stop)), False)]
            at = stop
        found.append((str.__getitem__(plain, slice(at, None)), True))
        return [(part, trusted) for part, trusted in found if part]


class Arguments(dict[Any, Any]):
    """Arguments of a tool call that came as JSON: a dict for templates that read it, `source` for those that write it out."""

    def __init__(self, values: dict[Any, Any], source: Text):
        super().__init__(values)
        self.source = source

    def __str__(self) -> str:
        return self.source


def as_text(value: str) -> Text:
    """A plain string comes from the template itself: no character is the user's."""
    return value if isinstance(value, Text) else Text(value, ())


def join(items: list[str], separator: str = "") -> str:
    """`separator.join(items)`, with spans where some part has them."""
    if not any(isinstance(item, Text) for item in (separator, *items)):
        return str.join(separator, items)
    spans: list[tuple[int, int]] = []
    at = 0
    for i, item in enumerate(items):
        for part in (separator, item) if i else (item,):
            for start, stop in part.spans if isinstance(part, Text) else ():
                if spans and spans[-1][1] == start + at:
                    spans[-1] = (spans[-1][0], stop + at)
                else:
                    spans.append((start + at, stop + at))
            at += len(part)
    return Text(str.join(separator, items), tuple(spans))


def from_user(value: Any, depth: int = 64) -> Any:
    """A copy of JSON-like data in which every string, keys included, is the user's. ValueError for other data or deep nesting."""
    if isinstance(value, str):
        return Text(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if depth == 0:
        raise ValueError("messages or tools are nested more than 64 deep")
    if isinstance(value, dict):
        return {from_user(key, depth - 1): from_user(inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [from_user(inner, depth - 1) for inner in value]
    raise ValueError(f"messages and tools hold text, numbers, lists and dicts; found {type(value).__name__}")


def mark(value: Any) -> Any:
    """The result of an operation that could not be followed, on what a user wrote: its strings are the user's."""
    if type(value) is list:
        return [mark(inner) for inner in value]
    if type(value) is tuple:
        return tuple(mark(inner) for inner in value)
    return Text(value) if isinstance(value, str) and not isinstance(value, Text) else value


def touched(values: Iterable[Any]) -> bool:
    """Whether something that a user wrote may be among the values; of containers that is assumed."""
    return any(
        (isinstance(value, Text) and value.spans) or not isinstance(value, (str, int, float, type(None))) for value in values
    )


def joined(items: Iterable[Any], separator: str = "") -> str:
    """The texts of items in a row, within the budget."""
    texts = [as_string(item) for item in items]
    current().string(sum(map(len, texts)) + len(separator) * len(texts))
    return join(texts, separator)


def as_string(value: Any) -> str:
    """What `{{ value }}` writes; of anything but strings and numbers all of it counts as the user's."""
    if isinstance(value, (str, Undefined)):
        return str(value)
    current().container(value)
    text = value.source if isinstance(value, Arguments) else str(value) if isinstance(value, _PLAIN) else shown(value)
    current().string(len(text))
    return mark(text) if touched((value,)) else text


def shown(value: Any) -> str:
    """The `repr` of data, in which functions and other objects are just their type: theirs would tell addresses."""
    if isinstance(value, (*_PLAIN, range)):
        return repr(value)
    current().tick()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{shown(key)}: {shown(inner)}" for key, inner in value.items()) + "}"
    kind = type(value).__name__
    if not isinstance(value, (list, tuple)):
        return f"{kind}({shown(list(value))})" if isinstance(value, _VIEWS) else f"<{kind}>"
    text = ", ".join(map(shown, value))
    return f"[{text}]" if isinstance(value, list) else f"({text},)" if len(value) == 1 else f"({text})"


class _Written(str):
    """The text of an object, which `%r` writes as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str.__str__(self)


def writable(value: Any) -> Any:
    """An argument of an operation that writes it: strings and numbers as they are, else the text that we write for it."""
    return value if isinstance(value, _PLAIN) else _Written(as_string(value))


def printf(layout: str, values: Any) -> str:
    """`layout % values`, within the budget."""
    given = values if isinstance(values, tuple) else (values,)
    check_growth("format", (layout, *given))
    if isinstance(values, dict) and "%(" in layout:
        written: Any = {key: writable(value) for key, value in values.items()}
    else:
        written = tuple(map(writable, given))
    result = str.__str__(layout) % written
    return Text(result) if touched((layout, *given)) else result


def _one(key: SupportsIndex, size: int) -> slice:
    index = key.__index__()
    index = index + size if index < 0 else index
    return slice(index, index + 1)
