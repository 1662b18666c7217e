"""Grammars as people give them, checked for what would be hostile or nonsense before anything is compiled."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lacewing.assistant.grammar.gbnf import lark_of_gbnf
from lacewing.assistant.grammar.schema import check_schema
from lacewing.errors import GrammarError
from lacewing.options import shown_value

MAX_BYTES = 64 << 10
MAX_DEPTH = 64
JSON_SCHEMA, REGEX, LARK = "json_schema", "regex", "lark"
_GBNF = re.compile(r"(?m)^\s*[\w-]+\s*::=")
# What opens and closes, and where that does not count: strings, classes, comments.
_REGEX_PARTS = re.compile(r"\\.|\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]|([()])", re.DOTALL)
_LARK_PARTS = re.compile(r'"(?:\\.|[^"\\\n])*"|/(?![/*])(?:\\.|[^/\\\n])+/|(?://|#)[^\n]*|([()\[\]{}])')


@dataclass(frozen=True)
class Grammar:
    """What an answer must look like. `kind`: one of JSON_SCHEMA, REGEX, LARK; `text` in llguidance's dialect of it.

    Made by the functions below, which raise GrammarError for what is larger than 64 KiB, nested deeper than 64, malformed as far as
    that shows without compiling it, or a schema that nothing satisfies; the message names the place.
    """

    kind: str
    text: str

    @staticmethod
    def json_object() -> Grammar:
        """Any JSON object: JSON mode."""
        return Grammar.json_schema({"type": "object"})

    @staticmethod
    def json_schema(schema: Mapping[str, Any] | str | bool) -> Grammar:
        """JSON that a schema (Draft 2020-12) describes, given as such or as its text.

        Properties come in the schema's order. Keywords that cannot be enforced are refused, formats that are not known ignored.
        """
        if isinstance(schema, str):
            _check_size("the JSON schema", schema)
            try:
                schema = json.loads(schema)
            except (ValueError, RecursionError) as error:
                raise GrammarError(f"the JSON schema is no JSON: {error}") from None
        found, patterns = check_schema(schema, MAX_DEPTH)
        for place, pattern in patterns:
            _check_depth(f"the pattern at {place} of the JSON schema", pattern, _REGEX_PARTS)
        try:
            text = json.dumps(found, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise GrammarError(f"the JSON schema cannot be written as JSON: {error}") from None
        _check_size("the JSON schema", text)
        return Grammar(JSON_SCHEMA, text)

    @staticmethod
    def regex(text: str) -> Grammar:
        """Text that a regex matches as a whole, in the syntax of Rust's `regex` crate."""
        _check_size("the regex", text)
        _check_depth("the regex", text, _REGEX_PARTS)
        return Grammar(REGEX, text)

    @staticmethod
    def lark(text: str) -> Grammar:
        """Text that a Lark grammar derives, in the dialect of llguidance, from its rule `start`."""
        _check_size("the grammar", text)
        _check_depth("the grammar", text, _LARK_PARTS)
        return Grammar(LARK, text)

    @staticmethod
    def gbnf(text: str) -> Grammar:
        """Text that a grammar in llama.cpp's GBNF derives, from its rule `root`."""
        _check_size("the grammar", text)
        return Grammar(LARK, lark_of_gbnf(text, MAX_DEPTH))

    @staticmethod
    def of_text(text: str) -> Grammar:
        """A grammar in GBNF, where rules are written with ::=, or else in Lark."""
        return Grammar.gbnf(text) if isinstance(text, str) and _GBNF.search(text) else Grammar.lark(text)


def _check_size(what: str, text: str) -> None:
    if not isinstance(text, str) or not text.strip():
        raise GrammarError(f"{what} is {shown_value(text)}; it must be text")
    size = len(text.encode("utf-8", "replace"))
    if size > MAX_BYTES:
        raise GrammarError(f"{what} has {size} bytes; at most {MAX_BYTES} are accepted")
    bad = next((at for at, letter in enumerate(text) if letter == "\0" or "\ud800" <= letter <= "\udfff"), None)
    if bad is not None:
        raise GrammarError(f"{what} has a character that is no text, at character {bad + 1}")


def _check_depth(what: str, text: str, parts: re.Pattern[str]) -> None:
    """Of brackets: the compiler of the grammar nests its calls as deep as these."""
    depth = 0
    for found in parts.finditer(text):
        if found[1] is None:
            continue
        depth += 1 if found[1] in "([{" else -1
        if depth > MAX_DEPTH:
            raise GrammarError(f"{what} is nested more than {MAX_DEPTH} deep, at character {found.start() + 1}")
