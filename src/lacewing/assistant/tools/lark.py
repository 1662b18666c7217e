"""Writes grammars in the Lark of llguidance, of texts some of which are control tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lacewing.assistant.tools.definitions import Tool

# As models write JSON: without freedom of white space, in which some of them get lost.
_JSON_STYLE = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}


@dataclass(frozen=True)
class Thoughts:
    """How a model's thoughts are enclosed before its calls; `begun`: the prompt has opened them."""

    opening: tuple[str, ...]
    closing: tuple[str, ...]
    begun: bool = False


class Lark:
    """Writes rules. `token`: the id of a control token by its spelling, None for what is spelt out."""

    def __init__(self, token: Callable[[str], int | None]):
        self._token = token
        self._rules: dict[str, str] = {}

    @property
    def text(self) -> str:
        """All rules."""
        return "\n".join(("%llguidance {}", *self._rules.values(), ""))

    def rule(self, name: str, body: str, options: str = "") -> str:
        """Adds a rule and gives its name."""
        self._rules[name] = f"{name}{options}: {body}"
        return name

    def spelt(self, *parts: str) -> str:
        """These texts in a row; each that is the spelling of a control token is that token."""
        return " ".join(self._part(part) for part in parts if part)

    def json(self, schema: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> str:
        """A value by its schema; `root`: whose definitions it refers to."""
        shared = {key: (root or schema)[key] for key in ("$defs", "definitions") if key in (root or schema)}
        return "%json " + json.dumps({**schema, **shared, "x-guidance": _JSON_STYLE})

    def arguments(self, tool: Tool) -> str:
        """The arguments of a tool as a JSON object."""
        schema = {"additionalProperties": False, **tool.parameters, "type": "object"}
        return self.rule(f"arguments_{len(self._rules)}", self.json(schema))

    def up_to(self, *ending: str) -> str:
        """Any text up to its end, and that."""
        name = f"text_{len(self._rules)}"
        first, *others = ending
        if self._token(first) is None:
            self.rule(name, "/(?s:.*)/", f"[suffix={json.dumps(first)}]")
            return " ".join((name, self.spelt(*others))).strip()
        self.rule(name, "/(?s:.*)/")
        return f"{name} {self.spelt(*ending)}"

    def _part(self, part: str) -> str:
        token = self._token(part)
        return json.dumps(part, ensure_ascii=False) if token is None else f"<[{token}]>"


def tagged(lark: Lark, tool: Tool, opening: Callable[[str], tuple[str, ...]], closing: tuple[str, ...]) -> str:
    """The parameters of a call that stand between tags, those that are required always, in the order of the schema."""
    found: list[str] = []
    for name in tool.properties:
        value = _bare(lark, tool, name, closing)
        rule = lark.rule(f"parameter_{len(found)}_{value[1]}", f"{lark.spelt(*opening(name))} {value[0]}")
        found.append(rule if name in tool.required else f"{rule}?")
    return " ".join(found)


def _bare(lark: Lark, tool: Tool, name: str, closing: tuple[str, ...]) -> tuple[str, int]:
    """A value and its end, and a number that no other rule has."""
    schema, types = tool.properties[name], tool.types(name)
    number = len(lark.text)
    allowed = schema.get("enum") if isinstance(schema, Mapping) else None
    if isinstance(allowed, list) and allowed and all(isinstance(each, str) for each in allowed):
        written = " | ".join(json.dumps(each, ensure_ascii=False) for each in allowed if each)
        return f"({written}) {lark.spelt(*closing)}", number
    if "string" in types:
        return lark.up_to(*closing), number
    return f"{lark.json(schema, tool.parameters)} {lark.spelt(*closing)}", number
