"""Reading a configuration key by key: typed, bounded, and remembering what was read so that the rest can be told of."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from lacewing.errors import UnsupportedModelError
from lacewing.formats.checkpoint import TensorInfo
from lacewing.formats.files import shown
from lacewing.options import counted, shown_value

_HARMLESS_VALUES: tuple[Any, ...] = (None, False, "", [], {})  # an unknown key so set asks for nothing
_MOST_TOLD = 6  # keys


class MetadataReader:
    """Typed access to metadata. An explicit null switches an architecture's default off.

    Every problem is an UnsupportedModelError that names the key. `notices`: what a person should know of the keys. `synonyms`:
    usual names, and what the maker calls them. `weights`: those of the checkpoint, under our names, for rows that look at them;
    `whole`: their values are here as well.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        where: str,
        defaults: Mapping[str, Any] | None = None,
        prefix: str = "",
        notices: list[str] | None = None,
        synonyms: Mapping[str, str] | None = None,
        weights: Mapping[str, TensorInfo] | None = None,
        whole: bool = True,
    ):
        self.values, self.where, self.defaults, self.prefix = values, where, defaults or {}, prefix
        self.notices: list[str] = [] if notices is None else notices
        self.synonyms = {name: theirs for name, theirs in (synonyms or {}).items() if prefix + theirs in values}
        self.read: set[str] = set()
        self.outer = ""  # what a key is called in `ignore_keys`: the dictionaries that it is in, each with a full stop
        self.weights, self.whole = weights or {}, whole

    def __contains__(self, name: str) -> bool:
        return self.values.get(self._key(name)) is not None

    def _key(self, name: str) -> str:
        """As it stands in the values."""
        return self.prefix + self.synonyms.get(name, name)

    def names(self) -> list[str]:
        """All keys that are there, without the prefix."""
        return [key[len(self.prefix) :] for key in self.values if key.startswith(self.prefix)]

    def get(self, name: str, default: Any = None) -> Any:
        """The value as it stands; where absent the architecture's own default; `default` where that is lacking or null."""
        key = self._key(name)
        self.read |= {key, self.prefix + name}
        value = self.values[key] if key in self.values else self.defaults.get(name)
        return default if value is None else _plain(value)

    def error(self, name: str, problem: str) -> UnsupportedModelError:
        return UnsupportedModelError(f"{self.where}: {self._key(name)} {problem}")

    def number(self, name: str, default: float | None = None, *, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number in [low, high]; required unless there is a default."""
        value = self.get(name, default)
        if value is None:
            raise self.error(name, "is missing")
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300 or not low <= value <= high:
            raise self.error(name, f"is {shown_value(value, 60)}; it must be a number from {low:g} to {high:g}")
        return float(value)

    def integer(
        self, name: str, default: int | None = None, *, low: int = 1, high: int = 2**24, ignoring: int | None = None
    ) -> int:
        """An integer in [low, high]; a list of equal integers (one a layer) counts as that integer, those `ignoring` apart."""
        value = self.get(name, default)
        if isinstance(value, list | tuple):
            value = [entry for entry in value if not isinstance(entry, int) or ignoring is None or entry != ignoring]
        plain = isinstance(value, list | tuple) and all(isinstance(entry, str | int | float) for entry in value)  # no arrays in it
        if plain and value and all(entry == value[0] for entry in value):
            value = value[0]
        if value is None:
            raise self.error(name, "is missing")
        if isinstance(value, list | tuple):
            raise self.error(name, "differs from layer to layer, which this version cannot run")
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.error(name, f"is {shown_value(value, 60)}; it must be an integer from {low} to {high}")
        return value

    def integers(self, name: str, count: int, default: int | None = None, *, low: int = 1, high: int = 2**24) -> tuple[int, ...]:
        """One integer in [low, high] for each of `count` layers; a single one holds for all."""
        value = self.get(name, default)
        if not isinstance(value, list | tuple):
            return (self.integer(name, default, low=low, high=high),) * count
        if len(value) != count or not all(type(entry) is int and low <= entry <= high for entry in value):
            raise self.error(name, f"must be an integer from {low} to {high}, or {count} of them, one a layer")
        return tuple(value)

    def optional_number(self, name: str, *, low: float = -math.inf, high: float = math.inf) -> float | None:
        return None if self.get(name) is None else self.number(name, low=low, high=high)

    def optional_integer(self, name: str, *, low: int = 1, high: int = 2**31) -> int | None:
        return None if self.get(name) is None else self.integer(name, low=low, high=high)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.get(name, default)
        if not isinstance(value, bool) and value not in (0, 1):
            raise self.error(name, f"is {shown_value(value, 60)}; it must be true or false")
        return bool(value)

    def choice(self, name: str, known: Mapping[str, str], default: str | None = None, numeric: bool = False) -> str:
        """One of the known words, as what they mean to us; with `numeric`, numbers stand for words."""
        value = self.get(name, default)
        if numeric and type(value) is int:
            value = str(value)
        if not isinstance(value, str) or value not in known:
            raise self.error(name, f"is {shown_value(value, 60)}; this version knows {', '.join(known)}")
        return known[value]

    def words(self, name: str, count: int, known: Collection[str], value: Any = None) -> list[str]:
        """A known word for each of `count` layers; `value`: what was read already, if another key may stand for this one."""
        value = self.get(name) if value is None else value
        if not isinstance(value, list | tuple) or len(value) != count or not all(_is_word(entry, known) for entry in value):
            raise self.error(name, f"must name {_either(known)} for each of the {count} layers")
        return list(value)

    def numbers(self, name: str, count: int) -> tuple[float, ...]:
        """Exactly `count` positive numbers."""
        value = self.get(name)
        if not isinstance(value, list | tuple) or len(value) != count or not all(_positive(entry) for entry in value):
            raise self.error(name, f"must be a list of {count} positive numbers")
        return tuple(float(entry) for entry in value)

    def flags(self, name: str, count: int) -> list[bool]:
        value = self.get(name)
        if (
            not isinstance(value, list | tuple)
            or len(value) < count
            or not all(isinstance(entry, int) and entry in (0, 1) for entry in value)
        ):
            raise self.error(name, f"must be a list of {count} flags, one a layer")
        return [bool(entry) for entry in value[:count]]

    def nested(self, name: str) -> MetadataReader | None:
        """A dictionary inside; None where absent."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.error(name, f"is {shown_value(value, 60)}; it must be a dictionary")
        found = MetadataReader(value, f"{self.where}: {self.prefix}{name}", notices=self.notices)
        found.outer = f"{self.outer}{self._key(name)}."
        return found

    def unread(self, harmless: Iterable[str] = ()) -> dict[str, Any]:
        """Keys, without the prefix, that were not read, are not known to change nothing, and ask for something."""
        known = self.read | {self.prefix + name for name in harmless}
        rest = {key: _plain(value) for key, value in self.values.items() if key.startswith(self.prefix) and key not in known}
        return {key[len(self.prefix) :]: value for key, value in rest.items() if value not in _HARMLESS_VALUES}

    def refuse_unknown(self, unread: Mapping[str, Any], inert: Mapping[str, tuple[Any, ...]]) -> None:
        """Refuse the first of these keys, unless each has a value that changes nothing."""
        for name, value in unread.items():
            if value not in inert.get(name, ()):
                problem = f"is {shown_value(value, 60)}; this version does not know the key, which may change the maths"
                raise self.error(
                    name, f"{problem}. To load the model without it, use `ignore_keys=['{self.outer}{self.prefix}{name}']`"
                )

    def tell_of(self, names: Iterable[str]) -> None:
        """A notice of keys that are left alone."""
        found = [shown(name) for name in names]
        if found:
            rest = f" and {len(found) - _MOST_TOLD} more" if len(found) > _MOST_TOLD else ""
            self.notices.append(
                f"{self.where}: {counted(len(found), 'unknown key')} ignored: {', '.join(found[:_MOST_TOLD])}{rest}"
            )


def without_keys(values: Mapping[str, Any], ignored: Iterable[str]) -> dict[str, Any]:
    """The values but for those keys; `outer.inner` also names a key of a dictionary inside, if there is no key of that name."""
    found = dict(values)
    for name in ignored:
        outer, _, inner = name.partition(".")
        if name in found:
            del found[name]
        elif inner and isinstance(found.get(outer), Mapping):
            found[outer] = without_keys(found[outer], [inner])
    return found


def _plain(value: Any) -> Any:
    """Arrays as lists, nested ones too, whose comparison is one answer."""
    if isinstance(value, list):
        return [_plain(entry) for entry in value] if any(isinstance(entry, np.ndarray | list) for entry in value) else value
    return value.tolist() if isinstance(value, np.ndarray) else value


def _is_word(value: object, known: Collection[str]) -> bool:
    """A list or a dictionary could not be looked up."""
    return isinstance(value, str) and value in known


def _either(known: Collection[str]) -> str:
    words = list(known)
    return f"{words[0]} or {words[1]}" if len(words) == 2 else f"one of {', '.join(words)}"


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 1e-9 < value < 1e38
