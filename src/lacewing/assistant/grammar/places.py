"""Which part of a schema the compiler refuses: it says what is wrong, but not where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lacewing.assistant.grammar.schema import parts_of
from lacewing.assistant.grammar.vocabulary import library

_TRIES = 300


def failing_place(schema: Any, message: str) -> tuple[str, str]:
    """The JSON pointer to the innermost part that is refused in the same way, and how it is refused."""
    shared = {name: schema[name] for name in ("$defs", "definitions", "$schema", "x-guidance") if name in schema}
    place, tries = "#", 0
    inner = schema
    while isinstance(inner, Mapping):
        for at, part in parts_of(place, inner):
            tries += 1
            found = _refusal({**shared, **part}) if tries <= _TRIES and isinstance(part, Mapping) else ""
            if found and _kind(found) == _kind(message):
                place, inner, message = at, part, found
                break
        else:
            break
    return place, message


def _refusal(schema: dict[str, Any]) -> str:
    matcher = library().LLMatcher
    found: str = matcher.validate_grammar(matcher.grammar_from_json_schema(schema))
    return found


def _kind(message: str) -> str:
    """What is refused; a part that nothing satisfies makes the whole so, in other words."""
    return "unsatisfiable" if "nsatisfiable" in message else message.split("\n", 1)[0]
