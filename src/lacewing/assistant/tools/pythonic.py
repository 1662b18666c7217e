"""Calls that are written as in Python: `[look(city="Rome", days=3), now()]`. Values become JSON as they come."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from typing import Any

from lacewing.assistant.tools.definitions import Tool
from lacewing.assistant.tools.json_calls import JsonCalls
from lacewing.assistant.tools.lark import Lark, separated
from lacewing.assistant.tools.parsing import ARGUMENTS, MARKUP, NotACall, Steps
from lacewing.assistant.tools.source import Read

_NAME = frozenset(string.ascii_letters + string.digits + "_.-")
_LONGEST = 128  # characters of a name
_STOPS = ("=", ",", ")", "(", "[", "{", '"', "'")  # what ends the name of a parameter, or shows that there is none
_WORDS = {True: "True", False: "False", None: "None"}


class PythonicCalls(JsonCalls):
    """For formats that write calls so, or as JSON objects."""

    def listed(self) -> Steps:
        """A list of calls, or of JSON objects. NotACall if the first is none."""
        source, at = self.source, self.source.at
        yield from source.space()
        listed = yield from source.literal("[")
        yield from source.space()
        if (yield from source.peek()) == "{":
            source.at = at
            yield from self.objects(loose=False)
            return
        yield from self._one()
        while True:
            self.emit(MARKUP)
            yield from source.space(",")
            if (yield from source.peek()) not in _NAME:
                break
            yield from self._one()
        if not listed or not (yield from source.sequence("]")):
            source.at = 0  # what stands here belongs to no call

    def _one(self) -> Steps:
        name = yield from self._word()
        if name is None or not (yield from self.source.literal("(")):
            raise NotACall
        self.start(name)
        yield from self._arguments_of(self.tools[name])

    def _word(self) -> Read:
        """A name, if one stands here."""
        source, at = self.source, self.source.at
        while True:
            while at < len(source.text) and source.text[at] in _NAME and at - source.at <= _LONGEST:
                at += 1
            if source.closed or at < len(source.text):
                break
            yield
        found, source.at = source.text[source.at : at], at
        return found or None

    def _arguments_of(self, tool: Tool) -> Steps:
        """Up to the bracket behind them. One without a name belongs to the parameter at its place."""
        source, names, count = self.source, list(tool.properties), 0
        while True:
            yield from source.space(",")
            if (yield from source.peek()) in (")", ""):
                break
            name = (yield from self._parameter()) or (names[count] if count < len(names) and source.rest else None)
            if name is None:
                break
            self.emit(ARGUMENTS, f"{', ' if count else '{'}{json.dumps(name, ensure_ascii=False)}: ")
            yield from source.space()
            yield from self.copy()
            count += 1
            yield from source.space()
            if (yield from source.peek()) not in (",", ")"):
                break
        ended = (yield from source.peek()) == ")"
        if ended or not (self.cut and source.closed and not source.rest):
            self.emit(ARGUMENTS, "}" if count else "{}")
        yield from source.literal(")")

    def _parameter(self) -> Read:
        """The name of a parameter and the sign behind it; None if a value stands here."""
        source, at = self.source, self.source.at
        name = yield from source.until(_STOPS)
        if name is not None and name.strip() and (yield from source.literal("=")):
            return name.strip()
        source.at = len(source.text) if name is None and source.closed else at  # the beginning of a name is no value
        return None


def spelling(lark: Lark, tool: Tool) -> str:
    """The grammar of one call."""
    parameters = separated(lark, tool, list(tool.properties), _parameter(lark, tool), ", ")
    return f"{lark.spelt(tool.name + '(')} {parameters} {lark.spelt(')')}"


def written(functions: Sequence[Mapping[str, Any]]) -> str:
    """Calls as a list, from their names and arguments in JSON."""
    return f"[{', '.join(map(_written, functions))}]"


def _written(function: Mapping[str, Any]) -> str:
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        arguments = None  # such as of a call that a limit cut
    pairs = arguments.items() if isinstance(arguments, dict) else ()
    return f"{function['name']}({', '.join(f'{name}={literal(value)}' for name, value in pairs)})"


def literal(value: Any) -> str:
    """A JSON value as Python writes it, with double quotes."""
    if value is None or isinstance(value, bool):
        return _WORDS[value]
    if isinstance(value, dict):
        return f"{{{', '.join(f'{literal(key)}: {literal(each)}' for key, each in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _parameter(lark: Lark, tool: Tool) -> Any:
    def rule(name: str) -> str:
        words = '("True" | "False")' if tool.types(name) == frozenset(("boolean",)) else ""
        return f"{lark.spelt(name + '=')} {words or lark.json(tool.properties[name], tool.parameters)}"

    return rule
