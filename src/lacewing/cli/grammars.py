"""What an answer must look like, as the command line has it: a file, or the text itself."""

from __future__ import annotations

from lacewing.assistant.grammar.source import JSON_SCHEMA, MAX_BYTES, REGEX, Grammar
from lacewing.errors import OptionError


def grammar_of(json_schema: str | None, grammar: str | None, regex: str | None) -> Grammar | None:
    """The one that is given. Raises OptionError for several, and files that cannot be read; GrammarError."""
    given = {"--json-schema": json_schema, "--grammar": grammar, "--regex": regex}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise OptionError(f"{' and '.join(named)} exclude each other; give one of them")
    if json_schema is not None:
        return Grammar.json_schema(_text_of(json_schema, "--json-schema", json_schema.lstrip().startswith("{")))
    if grammar is not None:
        return Grammar.of_text(_text_of(grammar, "--grammar", "::=" in grammar or "start:" in grammar))
    return None if regex is None else Grammar.regex(regex)


def argument_of(grammar: Grammar | None) -> dict[str, str]:
    """As the keyword argument of `Model.stream`."""
    if grammar is None:
        return {}
    return {{JSON_SCHEMA: "json_schema", REGEX: "regex"}.get(grammar.kind, "grammar"): grammar.text}


def _text_of(value: str, flag: str, is_text: bool) -> str:
    if is_text:
        return value
    from lacewing.formats.files import read_named  # with NumPy, which `lacewing --help` need not wait for

    try:
        data = read_named(value, MAX_BYTES)
    except OptionError as error:
        raise OptionError(f"{flag}: {error}; it is a file, or the text itself") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OptionError(f"{flag} {value}: byte {error.start} is not UTF-8") from None
