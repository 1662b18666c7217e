"""Parts of a context-free grammar that are regular, as regexes: a lexer is many times as fast as a parser of characters.

A lexer takes the longest match, so only what has no longer match is given to it: a part whose automaton (Glushkov's, of positions)
is deterministic and has no way on from where a match ends, as a string in quotes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

Ranges = tuple[tuple[int, int], ...]  # of code points, both ends included, ascending
ALL: Ranges = ((0, 0x10FFFF),)
_MOST = 300  # positions of an automaton
_DEEPEST = 100  # nested rules that are written out
_LONGEST = 24  # items of a row that become one regex
_WORK = 200_000  # steps for a grammar, about 0.2 s


@dataclass(frozen=True)
class Literal:
    text: str


@dataclass(frozen=True)
class Characters:
    """One character of some."""

    ranges: Ranges


@dataclass(frozen=True)
class Rule:
    name: str


@dataclass(frozen=True)
class Token:
    """One token of the model, by its name or id, as Lark has it."""

    lark: str


@dataclass(frozen=True)
class Row:
    """One after another."""

    items: tuple[Node, ...]


@dataclass(frozen=True)
class Choice:
    items: tuple[Node, ...]


@dataclass(frozen=True)
class Repeated:
    item: Node
    least: int
    most: int | None


Node = Literal | Characters | Rule | Token | Row | Choice | Repeated
Rules = Mapping[str, Node]


class NotRegularError(Exception):
    """Too large, or recursive, or with tokens."""


class Writer:
    """Writes rules in Lark, with their delimited parts as regexes; `names`: of rules in Lark."""

    def __init__(self, rules: Rules, names: Mapping[str, str]):
        self._rules, self._names = rules, names
        self._work = _WORK

    def lark(self, node: Node) -> str:
        """A rule's body."""
        match node:
            case Rule(name):
                return self._names[name]
            case Token(lark):
                return lark
            case Choice(items):
                return "(" + " | ".join(map(self.lark, items)) + ")"
            case Repeated(item, least, most):
                return f"({self.lark(item)}){_times(least, most)}"
            case Row(items):
                return " ".join(self._row(items)) or '""'
            case Literal(text):
                return json.dumps(text, ensure_ascii=False)
            case _:
                return f"/{regex_of(node, self._rules)}/"

    def _row(self, items: Sequence[Node]) -> list[str]:
        """In which the longest runs that can be are regexes."""
        found, at = [], 0
        while at < len(items):
            ends = range(min(len(items), at + _LONGEST), at, -1)
            run = next((row for end in ends if self.is_delimited(row := Row(tuple(items[at:end])))), None)
            found.append(self.lark(items[at]) if run is None else f"/{regex_of(run, self._rules)}/")
            at += 1 if run is None else len(run.items)
        return found

    def is_delimited(self, node: Node) -> bool:
        """Whether no text that it derives is the beginning of another; False also where that takes too long to find out."""
        automaton = _Automaton(self._rules, self._work)
        try:
            nullable, first, last = automaton.add(node, 0)
            return not nullable and not any(automaton.following[each] for each in last) and automaton.is_deterministic(first)
        except NotRegularError:
            return False
        finally:
            self._work = automaton.work


class _Automaton:
    """A position for each character of an expression; `following`: those that may come next. `work`: steps that are left."""

    def __init__(self, rules: Rules, work: int):
        self._rules, self.work = rules, work
        self.ranges: list[Ranges] = []
        self.following: list[set[int]] = []

    def add(self, node: Node, depth: int) -> tuple[bool, set[int], set[int]]:
        """Whether it derives the empty text, and the positions with which its texts begin and end. Raises NotRegularError."""
        self._spend(1)
        match node:
            case Characters(ranges):
                place = self._position(ranges)
                return False, {place}, {place}
            case Literal(text):
                return self._row([Characters(((ord(letter), ord(letter)),)) for letter in text], depth)
            case Row(items):
                return self._row(items, depth)
            case Choice(items):
                parts = [self.add(each, depth) for each in items]
                return any(each[0] for each in parts), _union([each[1] for each in parts]), _union([each[2] for each in parts])
            case Repeated(item, least, most):
                return self._repeated(item, least, most, depth)
            case Rule(name) if depth < _DEEPEST:
                return self.add(self._rules[name], depth + 1)
            case _:
                raise NotRegularError

    def is_deterministic(self, first: set[int]) -> bool:
        """Whether no character is in two of the positions that may come next, anywhere."""
        for places in (first, *self.following):
            self._spend(len(places))
            ends = sorted(each for place in places for each in self.ranges[place])
            if any(before[1] >= after[0] for before, after in pairwise(ends)):
                return False
        return True

    def _follow(self, places: set[int], begins: set[int]) -> None:
        for place in places:
            self._spend(len(begins))
            self.following[place] |= begins

    def _spend(self, steps: int) -> None:
        self.work -= steps
        if self.work < 0:
            raise NotRegularError

    def _position(self, ranges: Ranges) -> int:
        self._spend(1)
        if len(self.ranges) >= _MOST:
            raise NotRegularError
        self.ranges.append(ranges)
        self.following.append(set())
        return len(self.ranges) - 1

    def _row(self, items: Sequence[Node], depth: int) -> tuple[bool, set[int], set[int]]:
        nullable, first, last = True, set[int](), set[int]()
        for item in items:
            empty, begins, ends = self.add(item, depth)
            self._follow(last, begins)
            first |= begins if nullable else set()
            last = ends | (last if empty else set())
            nullable = nullable and empty
        return nullable, first, last

    def _repeated(self, item: Node, least: int, most: int | None, depth: int) -> tuple[bool, set[int], set[int]]:
        if (most or least) > _MOST:
            raise NotRegularError
        if most is None:
            row: list[Node] = [item] * max(least, 1)
            nullable, first, last = self._row(row[:-1], depth)
            empty, begins, ends = self.add(item, depth)
            self._follow(last | ends, begins)
            first |= begins if nullable else set()
            return least == 0 or (nullable and empty), first, ends | (last if empty or least == 0 else set())
        option: Node = Row(())
        for _ in range(most - least):
            option = Choice((Row(()), Row((item, option))))
        return self._row([*[item] * least, option], depth)


def regex_of(node: Node, rules: Rules) -> str:
    """In the syntax of Rust's `regex`, of a regular part."""
    match node:
        case Characters(ranges):
            return "(?s:.)" if ranges == ALL else "[" + "".join(f"{_escaped(low)}-{_escaped(high)}" for low, high in ranges) + "]"
        case Literal(text):
            return "".join(_escaped(ord(letter)) for letter in text)
        case Row(items):
            return "".join(regex_of(each, rules) for each in items)
        case Choice(items):
            return "(?:" + "|".join(regex_of(each, rules) for each in items) + ")"
        case Repeated(item, least, most):
            return f"(?:{regex_of(item, rules)}){_times(least, most)}"
        case Rule(name):
            return f"(?:{regex_of(rules[name], rules)})"
        case _:
            raise NotRegularError


def _times(least: int, most: int | None) -> str:
    return {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((least, most), f"{{{least},{'' if most is None else most}}}")


def _escaped(code: int) -> str:
    """Of a character that might mean something, the number."""
    return chr(code) if chr(code).isascii() and chr(code).isalnum() else f"\\x{{{code:x}}}"


def _union(sets: Sequence[set[int]]) -> set[int]:
    return set().union(*sets)


def complement(ranges: Ranges) -> Ranges:
    """All other characters."""
    found, at = [], 0
    for low, high in ranges:
        if low > at:
            found.append((at, low - 1))
        at = max(at, high + 1)
    return (*found, (at, 0x10FFFF)) if at <= 0x10FFFF else tuple(found)


def merged(ranges: Sequence[tuple[int, int]]) -> Ranges:
    """In order, and none beside another."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return tuple(found)


def needs_of(node: Node, name: Callable[[list[list[str]]], str]) -> list[list[str]]:
    """Which rules must derive something for this to do so, as for `inhabited`; `name` makes a helper rule of an alternative."""
    match node:
        case Rule(rule):
            return [[rule]]
        case Row(items):
            return [group for each in items for group in needs_of(each, name)]
        case Choice(items):
            return [[name(needs_of(each, name)) for each in items]]
        case Repeated(item, least, _):
            return needs_of(item, name) if least else []
        case _:
            return []
