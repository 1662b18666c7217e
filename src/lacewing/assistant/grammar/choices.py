"""Grammars among the keyword arguments and options of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from lacewing.assistant.grammar.source import Grammar
from lacewing.errors import OptionError

if TYPE_CHECKING:
    from lacewing.engine.constraint import Constraint
    from lacewing.text.tokenizer import Tokenizer

Bound = Grammar | Callable[[], "Constraint"]  # what an answer must follow: as people give it, or what makes a constraint for each


class GrammarArguments(TypedDict, total=False):
    """What an answer must look like; one of them at most."""

    json: bool
    """Any JSON object."""
    json_schema: Mapping[str, Any] | str | bool | None
    """JSON that a schema describes, or its text."""
    regex: str | None
    """Text that a regex matches as a whole."""
    grammar: str | None
    """Text that a grammar in Lark or GBNF derives."""


def take_grammar(options: dict[str, Any]) -> Grammar | None:
    """The one that the keyword arguments ask for, which are taken out. Raises GrammarError, OptionError for several."""
    given = {name: options.pop(name) for name in GrammarArguments.__annotations__ if name in options}
    given = {name: value for name, value in given.items() if value is not None and not (name == "json" and value is False)}
    if len(given) > 1:
        raise OptionError(f"`{'` and `'.join(given)}` exclude each other; give one of them")
    for name, value in given.items():
        if name == "json" and value is not True:
            raise OptionError("`json` must be true or false; a schema is `json_schema`")
        makers: dict[str, Callable[[Any], Grammar]] = {
            "json": lambda _: Grammar.json_object(), "json_schema": Grammar.json_schema, "regex": Grammar.regex,
            "grammar": Grammar.of_text,
        }  # fmt: skip
        return makers[name](value)
    return None


def bind(
    bound: Bound | None, tokenizer: Tokenizer, vocab_size: int, stop_ids: frozenset[int], *, start: bool
) -> Callable[[], Constraint] | None:
    """Makes the constraint of one answer; a grammar is compiled now. `start`: see `Compiled.follow`. Raises GrammarError."""
    if not isinstance(bound, Grammar):
        return bound
    from lacewing.assistant.grammar.compiled import compile_grammar

    compiled = compile_grammar(bound, tokenizer, vocab_size)
    return lambda: compiled.follow(stop_ids, start)
