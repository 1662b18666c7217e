"""llama.cpp's GBNF to the Lark of llguidance: the same language; what is regular and delimited goes to the lexer.

Reference: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md
"""

from __future__ import annotations

import re

from lacewing.assistant.grammar.inhabited import inhabited
from lacewing.assistant.grammar.regular import (
    ALL,
    Characters,
    Choice,
    Literal,
    Node,
    Repeated,
    Row,
    Rule,
    Token,
    Writer,
    complement,
    merged,
    needs_of,
)  # fmt: skip
from lacewing.errors import GrammarError

_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_COUNT = re.compile(r"\{\s*(\d{1,6})?\s*(,)?\s*(\d{1,6})?\s*\}")
_TOKEN = re.compile(r"<\[\d{1,8}\]>|<[^\s<>]+>")
_ESCAPE = re.compile(r"\\(?:([nrt\\\"\[\]^-])|x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8}))")
_LETTERS = {"n": "\n", "r": "\r", "t": "\t"}


def lark_of_gbnf(text: str, max_depth: int) -> str:
    """The grammar in Lark. Raises GrammarError that names the line and column."""
    reader = _Reader(text, max_depth)
    reader.read()
    return reader.lark()


class _Reader:
    def __init__(self, text: str, max_depth: int):
        self._text, self._at, self._max_depth = text, 0, max_depth
        self._rules: dict[str, Node] = {}
        self._used: dict[str, int] = {}  # rules, and where they are first named

    def read(self) -> None:
        """All rules."""
        self._skip(lines=True)
        while self._at < len(self._text):
            begin = self._at
            name = self._name()
            if name in self._rules:
                raise self._error(f"the rule {name} is defined twice", begin)
            self._skip()
            if not self._text.startswith("::=", self._at):
                raise self._error(f"expected ::= after the name {name}")
            self._at += 3
            self._skip(lines=True)
            self._rules[name] = self._alternatives(0)
            if self._at < len(self._text) and self._text[self._at] not in "\r\n":
                raise self._error(f"did not expect {self._text[self._at]!r} here")
            self._skip(lines=True)

    def lark(self) -> str:
        """Checked: all names are known, and the root derives something."""
        for name, at in self._used.items():
            if name not in self._rules:
                raise self._error(f"there is no rule {name}", at)
        if "root" not in self._rules:
            raise GrammarError("the grammar has no rule root, with which GBNF begins")
        self._check_inhabited()
        names = {name: f"r{index}" for index, name in enumerate(self._rules)}
        writer = Writer(self._rules, names)
        rules = (f"{names[name]}: {writer.lark(rule)}" for name, rule in self._rules.items())
        return "\n".join((f"start: {names['root']}", *rules))

    def _check_inhabited(self) -> None:
        needs: dict[str, list[list[str]]] = {}

        def helper(groups: list[list[str]]) -> str:
            needs[name := f" {len(needs)}"] = groups  # no rule is called so
            return name

        needs |= {name: needs_of(rule, helper) for name, rule in self._rules.items()}
        alive = inhabited(needs)
        if "root" not in alive:
            dead = next(name for name in self._rules if name not in alive)
            raise GrammarError(f"nothing satisfies the grammar: its rule {dead} needs itself within itself, without end")

    # pieces

    def _alternatives(self, depth: int) -> Node:
        if depth > self._max_depth:
            raise self._error(f"the grammar is nested more than {self._max_depth} deep")
        found = [self._sequence(depth)]
        while self._text.startswith("|", self._at):
            self._at += 1
            self._skip(lines=True)
            found.append(self._sequence(depth))
        return found[0] if len(found) == 1 else Choice(tuple(found))

    def _sequence(self, depth: int) -> Node:
        items: list[Node] = []
        while (item := self._item(depth)) is not None:
            items.append(self._repeated(item))
            self._skip(lines=depth > 0)
        return Row(tuple(items))

    def _item(self, depth: int) -> Node | None:
        letter, begin = self._text[self._at : self._at + 1], self._at
        if letter == '"':
            return Literal(self._literal())
        if letter == "[":
            return self._class()
        if letter == ".":
            self._at += 1
            return Characters(ALL)
        if letter == "(":
            return self._group(depth)
        if letter in ("<", "!"):
            return self._token()
        if _NAME.match(letter):
            name = self._name()
            self._used.setdefault(name, begin)
            return Rule(name)
        return None

    def _group(self, depth: int) -> Node:
        begin = self._at
        self._at += 1
        self._skip(lines=True)
        inner = self._alternatives(depth + 1)
        if not self._text.startswith(")", self._at):
            raise self._error("expected ) for this (", begin)
        self._at += 1
        return inner

    def _repeated(self, item: Node) -> Node:
        self._skip()
        letter = self._text[self._at : self._at + 1]
        if letter and letter in "*+?":
            self._at += 1
            return Repeated(item, int(letter == "+"), 1 if letter == "?" else None)
        if letter != "{":
            return item
        found = _COUNT.match(self._text, self._at)
        if found is None or not (found[1] or found[3]):
            raise self._error("expected {count}, {least,} or {least,most}")
        least, most = int(found[1] or 0), int(found[3]) if found[3] else None if found[2] else int(found[1])
        if most is not None and most < least:
            raise self._error(f"at least {least} and at most {most} times is never")
        self._at = found.end()
        return Repeated(item, least, most)

    def _token(self) -> Node:
        found = _TOKEN.match(self._text, self._at)
        if found is None:
            raise self._error("expected a token such as <[7]> or <name>; tokens cannot be excluded by !")
        self._at = found.end()
        return Token(found[0])

    # characters

    def _literal(self) -> str:
        begin, letters = self._at, []
        self._at += 1
        while not self._text.startswith('"', self._at):
            letters.append(self._character(begin))
        self._at += 1
        return "".join(letters)

    def _class(self) -> Node:
        begin, ranges = self._at, []
        self._at += 1
        negated = self._text.startswith("^", self._at)
        self._at += negated
        while not self._text.startswith("]", self._at):
            first = last = self._character(begin)
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                last = self._character(begin)
            if last < first:
                raise self._error(f"the range from {first!r} to {last!r} is empty")
            ranges.append((ord(first), ord(last)))
        self._at += 1
        found = complement(merged(ranges)) if negated else merged(ranges)
        if not found:
            raise self._error("a class of no characters matches nothing", begin)
        return Characters(found)

    def _character(self, begin: int) -> str:
        if self._at >= len(self._text):
            raise self._error("what begins here is not closed", begin)
        letter = self._text[self._at]
        if letter != "\\":
            self._at += 1
            return letter
        found = _ESCAPE.match(self._text, self._at)
        code = 0 if found is None else int(found[2] or found[3] or found[4] or "0", 16)
        if found is None or code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise self._error(f"{self._text[self._at : self._at + 6]!r} is not an escape that GBNF knows")
        self._at = found.end()
        return _LETTERS.get(found[1], found[1]) if found[1] else chr(code)

    def _name(self) -> str:
        found = _NAME.match(self._text, self._at)
        if found is None:
            raise self._error("expected the name of a rule")
        self._at = found.end()
        return found[0]

    def _skip(self, lines: bool = False) -> None:
        found = (_SPACE_AND_LINES if lines else _SPACE).match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _error(self, message: str, at: int | None = None) -> GrammarError:
        at = self._at if at is None else at
        line, column = self._text.count("\n", 0, at) + 1, at - self._text.rfind("\n", 0, at)
        return GrammarError(f"the grammar is wrong in line {line}, column {column}: {message}")
