"""What Tab offers: commands, and for each argument what its kind is made of. Pure; the editor asks it about the line so far."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from lacewing.chat.commands.table import Argument, CommandTable, Option, is_command
from lacewing.errors import LacewingError, OptionError
from lacewing.options import user_path

Source = Callable[[], Iterable[str]]
MAX_PATHS = 500  # entries of one folder


@dataclass(frozen=True)
class Candidate:
    """`text` instead of the last `length` characters before the cursor; `about` stands beside it."""

    text: str
    length: int
    about: str = ""


def candidates(before: str, table: CommandTable, sources: Mapping[str, Source]) -> Iterator[Candidate]:
    """For the text before the cursor. `sources` give the names of a kind of argument: "model", "template", "session"."""
    if not is_command(before):
        yield from _mention(before)
        return
    name, space, rest = before[1:].partition(" ")
    if not space:
        yield from _commands(name, table)
        return
    try:
        command = table.find(name.lower())
    except LacewingError:
        return
    words, word = _words(rest)
    if word.startswith("--") or (words and any(f"--{option.name}" == words[-1] and option.kind for option in command.options)):
        yield from _options(words, word, command.options, sources)
        return
    place = _place(words, command.options)
    arguments = command.arguments
    if place < len(arguments):
        yield from _argument(arguments[place], word, table, sources)
    elif arguments and arguments[-1].rest:
        yield from _argument(arguments[-1], word, table, sources)


def _commands(start: str, table: CommandTable) -> Iterator[Candidate]:
    for name in table.names():
        if name.startswith(start.lower()):
            yield Candidate(name, len(start), table.find(name).summary)


def _words(rest: str) -> tuple[list[str], str]:
    """The complete words of a line, and the one that is being written; a quote keeps spaces within a word."""
    words: list[str] = []
    word, quote = "", ""
    for character in rest:
        if quote:
            quote, word = ("", word) if character == quote else (quote, word + character)
        elif character in "\"'" and not word:
            quote = character
        elif character.isspace():
            words, word = ([*words, word] if word else words), ""
        else:
            word += character
    return words, word


def _place(words: list[str], options: Iterable[Option]) -> int:
    """How many places the words before have filled; the values of options fill none."""
    takes = {f"--{option.name}" for option in options if option.kind}
    filled, skip = 0, False
    for word in words:
        if skip:
            skip = False
        elif word.startswith("--"):
            skip = word in takes
        else:
            filled += 1
    return filled


def _options(words: list[str], word: str, options: Iterable[Option], sources: Mapping[str, Source]) -> Iterator[Candidate]:
    for option in options:
        if words and words[-1] == f"--{option.name}" and option.kind:
            yield from _names(sources[option.kind]() if option.kind in sources else (), word)
            return
    for option in options:
        name = f"--{option.name}"
        if name.startswith(word) and name not in words:
            yield Candidate(name, len(word))


def _argument(argument: Argument, word: str, table: CommandTable, sources: Mapping[str, Source]) -> Iterator[Candidate]:
    fixed = (*argument.choices, *(("on", "off") if argument.kind == "on/off" else ()))
    yield from _names(fixed, word)
    if argument.kind == "command":
        yield from _commands(word, table)
    if argument.kind in sources:
        yield from _names(sources[argument.kind](), word)
    if argument.kind in ("path", "model", "template"):
        yield from _paths(word)


def _names(names: Iterable[str], word: str) -> Iterator[Candidate]:
    for name in names:
        if name.startswith(word):
            yield Candidate(_quoted(name), len(word))


def _quoted(name: str) -> str:
    return f'"{name}"' if " " in name else name


def _mention(before: str) -> Iterator[Candidate]:
    """@file, at the end of a message."""
    start = max(before.rfind(space) for space in (" ", "\n", "\t", "(")) + 1
    if before[start:].startswith("@"):
        yield from _paths(before[start + 1 :])


def _paths(word: str) -> Iterator[Candidate]:
    """Files and folders that begin so; hidden ones only when asked for. The word may begin with a ~."""
    folder, part = os.path.split(word)
    try:
        base = user_path(folder or ".")
        entries = sorted(base.iterdir(), key=lambda entry: entry.name)[:MAX_PATHS]
    except (OSError, OptionError):
        return
    for entry in entries:
        hidden = entry.name.startswith(".") and not part.startswith(".")
        if entry.name.startswith(part) and not hidden and entry.name.isprintable():
            name = entry.name + ("/" if entry.is_dir() else "")
            yield Candidate(name, len(part))
