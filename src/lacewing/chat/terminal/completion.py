"""What Tab offers: commands, and for each argument what its kind is made of. Pure; the editor asks it about the line so far."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from lacewing.chat.commands.table import Argument, CommandTable, Option, is_command, without_mark
from lacewing.errors import LacewingError, OptionError
from lacewing.paths import user_path

Source = Callable[[], Iterable[str]]
MAX_PATHS = 500  # entries of one folder
_MENTION = re.compile(r"(?:^|[\s(])@(?:(\")([^\"\n]*)|([^\s\"]*))$")


@dataclass(frozen=True)
class Candidate:
    """`text` instead of the last `length` characters before the cursor; shown as `name`, with `about` beside it."""

    text: str
    length: int
    about: str = ""
    name: str = ""


@dataclass(frozen=True)
class _Word:
    """The word that is being written: its text, and the quote that it begins with."""

    text: str = ""
    quote: str = ""

    def candidate(self, text: str, name: str = "", open_ended: bool = False) -> Iterator[Candidate]:
        """This text in its place, in quotes where it needs them; `open_ended`: more follows within the quotes."""
        quote = self.quote or ('"' if any(map(str.isspace, text)) or text[:1] in ("'", '"') else "")
        quote = "'" if quote == '"' in text and not self.quote else quote
        if not quote or quote not in text:
            yield Candidate(f"{quote}{text}{'' if open_ended else quote}", len(self.quote + self.text), name=name or text)


def candidates(before: str, table: CommandTable, sources: Mapping[str, Source]) -> Iterator[Candidate]:
    """For the text before the cursor. `sources` give the names of a kind of argument: "model", "template", "session"."""
    before = without_mark(before)
    if not is_command(before):
        yield from _mention(before)
        return
    name, space, rest = before.lstrip()[1:].partition(" ")
    if not space:
        yield from _commands(name, table)
        return
    try:
        command = table.find(name.lower())
    except LacewingError:
        return
    words, word = _words(rest)
    kinds = {f"--{each.name}": each.kind for each in command.options if each.kind}
    kind = kinds.get(words[-1]) if words else None
    place, arguments = _place(words, command.options), command.arguments
    if kind is not None:
        yield from _names(_from(sources, kind), word)
    elif word.text.startswith("--") and not word.quote:
        yield from _names((f"--{each.name}" for each in command.options if f"--{each.name}" not in words), word)
    elif place < len(arguments) or (arguments and arguments[-1].rest):
        yield from _argument(arguments[min(place, len(arguments) - 1)], word, table, sources)


def _commands(start: str, table: CommandTable) -> Iterator[Candidate]:
    for name in table.names():
        if name.startswith(start.lower()):
            yield Candidate(name, len(start), table.find(name).summary)


def _words(rest: str) -> tuple[list[str], _Word]:
    """The complete words of a line, and the one that is being written; a quote keeps spaces within a word."""
    words: list[str] = []
    word, quote, begins = "", "", ""
    for character in rest:
        if quote:
            quote, word = ("", word) if character == quote else (quote, word + character)
        elif character in "\"'" and not word:
            quote = begins = character
        elif character.isspace():
            words, word, begins = ([*words, word] if word else words), "", ""
        else:
            word += character
    return words, _Word(word, begins)


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


def _argument(argument: Argument, word: _Word, table: CommandTable, sources: Mapping[str, Source]) -> Iterator[Candidate]:
    fixed = (*argument.choices, *(("on", "off") if argument.kind == "on/off" else ()))
    yield from _names(fixed, word)
    if argument.kind == "command":
        yield from _commands(word.text, table)
    yield from _names(_from(sources, argument.kind), word)
    if argument.kind in ("path", "model", "template"):
        yield from _paths(word)


def _from(sources: Mapping[str, Source], kind: str) -> Iterable[str]:
    """What a source has; nothing where it cannot be asked, such as a folder that may not be listed."""
    with contextlib.suppress(LacewingError, OSError):
        return sources[kind]() if kind in sources else ()
    return ()


def _names(names: Iterable[str], word: _Word) -> Iterator[Candidate]:
    for name in names:
        if name.startswith(word.text):
            yield from word.candidate(name)


def _mention(before: str) -> Iterator[Candidate]:
    """@file, or @"a file", at the end of a message."""
    match = _MENTION.search(before)
    if match:
        yield from _paths(_Word(match[2] if match[1] else match[3], match[1] or ""))


def _paths(word: _Word) -> Iterator[Candidate]:
    """Files and folders that begin so; hidden ones only when asked for. The word may begin with a ~."""
    folder, part = os.path.split(word.text)
    try:
        base = user_path(folder or ".")
        entries = sorted(base.iterdir(), key=lambda entry: entry.name)[:MAX_PATHS]
    except (OSError, OptionError):
        return
    for entry in entries:
        hidden = entry.name.startswith(".") and not part.startswith(".")
        if entry.name.startswith(part) and not hidden and entry.name.isprintable():
            name = entry.name + ("/" if entry.is_dir() else "")
            yield from word.candidate(word.text[: len(word.text) - len(part)] + name, name, open_ended=entry.is_dir())
