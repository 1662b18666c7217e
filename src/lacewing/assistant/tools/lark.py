"""Writes grammars in the Lark of llguidance, of texts some of which are control tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
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
    """Writes rules. `tokens`: the ids of control tokens by their spelling, which are these tokens wherever they are in a text."""

    def __init__(self, tokens: Mapping[str, int]):
        self._tokens = tokens
        spellings = sorted(tokens, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, spellings)) + ")" if spellings else r"((?!))")
        self._rules: dict[str, tuple[str, str]] = {}

    @property
    def text(self) -> str:
        """All rules."""
        rules = (f"{name}{options}: {body}" for name, (options, body) in self._rules.items())
        return "\n".join(("%llguidance {}", *rules, ""))

    def rule(self, name: str, body: str, options: str = "") -> str:
        """Adds a rule and gives its name."""
        self._rules[name] = (options, body)
        return name

    def body(self, name: str) -> str:
        """Of a rule."""
        return self._rules[name][1]

    def behind(self, body: str, beginning: str) -> str:
        """The rest of a rule's body that begins with a text."""
        for part in self._parts(beginning):
            written = self._part(part)
            literal = written[:-1] if written.startswith('"') else written  # which may go on
            if not body.startswith(literal):
                raise ValueError(f"{body[:80]} does not begin with {literal}")
            rest = body[len(literal) :].removeprefix('"') if written == body[: len(written)] else f'"{body[len(literal) :]}'
            body = rest.lstrip()
        return body

    def spelt(self, *parts: str) -> str:
        """These texts in a row."""
        return " ".join(map(self._part, self._parts(*parts)))

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
        name, parts = f"text_{len(self._rules)}", self._parts(*ending)
        token = next((place for place, part in enumerate(parts) if part in self._tokens), None)
        if token is None:
            return self.rule(name, "/(?s:.*)/", f"[suffix={_quoted(''.join(parts))}]")
        lead = re.escape("".join(parts[:token])).replace("/", "\\/").replace("\n", "n")
        self.rule(name, f"/(?s:.*){lead}/")  # no text holds the token
        return f"{name} {self.spelt(*parts[token:])}"

    def _parts(self, *texts: str) -> list[str]:
        """Texts in a row, cut before and behind control tokens."""
        return [part for part in self._split.split("".join(texts)) if part]

    def _part(self, part: str) -> str:
        return f"<[{self._tokens[part]}]>" if part in self._tokens else _quoted(part)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def separated(lark: Lark, tool: Tool, names: Sequence[str], written: Callable[[str], str], comma: str) -> str:
    """Parameters in this order with a comma between two, those that are required always; `written`: the rule of a parameter."""
    first, after, nullable = "", "", True  # of what is left of them: with nothing before it, and behind another one
    for name in reversed(names):
        number = len(lark.text)
        each = lark.rule(f"parameter_{number}", written(name))
        head = f"{each} {after}"
        first = head if name in tool.required or not first else f"{head} | {first}"
        nullable = nullable and name not in tool.required
        more = f"{lark.spelt(comma)} {each}"
        after = lark.rule(f"more_{number}", f"{more if name in tool.required else f'({more})?'} {after}")
    return f"({first}){'?' if nullable else ''}" if first else ""


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
