"""Commands of the chat as data: one table of functions with their arguments; help, completion and docs come from it.

A command is a function `(chat, **arguments) -> Reply`; its docstring is its help, the first line of it the summary.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from lacewing.chat.session.conversation import Conversation
from lacewing.chat.session.events import Event
from lacewing.chat.session.remote import RemoteSession
from lacewing.chat.session.session import Session
from lacewing.console.output import Columns, Table
from lacewing.errors import OptionError
from lacewing.options import ON_OFF, did_you_mean, known_spelling

# Kinds of argument: what completes them, and what a line's word becomes.
KINDS = (
    "text",
    "model",
    "served",
    "template",
    "path",
    "on/off",
    "number",
    "decimal",
    "session",
    "command",
    "backend",
    "residency",
    "choice",
)


@dataclass(frozen=True)
class Argument:
    """One word of a command, by place. `rest`: all that follows, as it was typed. Of kind "choice", `choices` are the words."""

    name: str
    kind: str = "text"
    choices: tuple[str, ...] = ()
    required: bool = False
    rest: bool = False

    @property
    def usage(self) -> str:
        words = {"on/off": "on|off", "choice": "|".join(self.choices)}.get(self.kind, self.name.upper())
        words = "|".join((*self.choices, words)) if self.choices and self.kind != "choice" else words
        return words if self.required else f"[{words}]"


@dataclass(frozen=True)
class Option:
    """`--name VALUE` of a kind, or a plain `--name` where the kind is None; anywhere in the line."""

    name: str
    kind: str | None = None

    @property
    def usage(self) -> str:
        return f"[--{self.name}]" if self.kind is None else f"[--{self.name} {self.kind.upper()}]"


@dataclass(frozen=True)
class Reply:
    """What a command answers; shown in the order text, data, stream.

    `kind`: "info", "markdown", "diff" or "code" tells how `text` is to be shown. `stream`: an answer of the model to show as it
    comes. `then`: "quit" ends the chat.
    """

    text: str = ""
    data: Table | Columns | Sequence[Table] | None = None
    kind: str = "info"
    stream: Iterator[Event] | None = None
    then: str | None = None


Function = Callable[..., Reply]


@dataclass(frozen=True)
class Command:
    """A row of the table."""

    name: str
    run: Function
    arguments: tuple[Argument, ...] = ()
    options: tuple[Option, ...] = ()
    aliases: tuple[str, ...] = ()
    group: str = ""

    @property
    def help(self) -> str:
        return inspect.cleandoc(self.run.__doc__ or "")

    @property
    def summary(self) -> str:
        return self.help.split("\n")[0]

    @property
    def usage(self) -> str:
        parts = [part.usage for part in self.arguments] + [part.usage for part in self.options]
        return " ".join([f"/{self.name}", *parts])

    @property
    def short(self) -> str:
        """The usage without options."""
        return " ".join([f"/{self.name}", *(part.usage for part in self.arguments)])

    def __call__(self, chat: Conversation, **arguments: Any) -> Reply:
        return self.run(chat, **arguments)


@dataclass
class CommandTable:
    """Commands by name; `find` knows the aliases too."""

    rows: dict[str, Command] = field(default_factory=dict)
    _aliases: dict[str, str] = field(default_factory=dict)

    def add(self, command: Command) -> None:
        for name in (command.name, *command.aliases):
            if name in self.rows or name in self._aliases:
                raise ValueError(f"two commands are called /{name}")
        self.rows[command.name] = command
        self._aliases |= dict.fromkeys(command.aliases, command.name)

    def names(self) -> list[str]:
        """Names and aliases, for completion."""
        return sorted([*self.rows, *self._aliases])

    def find(self, name: str) -> Command:
        """Raises OptionError, with what may have been meant."""
        name = known_spelling(name, self.names()) or name
        found = self.rows.get(self._aliases.get(name, name))
        if found is None:
            if any(name in table.names() for table in _TABLES.values()):
                raise OptionError(f"/{name} is for models of this machine, not for those of a server; /help lists the commands")
            hint = did_you_mean(f"/{name}", [f"/{each}" for each in self.names()]) or "/help lists the commands"
            raise OptionError(f"there is no command /{name}; {hint} (to send a message that begins with a slash, write //)")
        return found


COMMANDS = CommandTable()
_TABLES: dict[type[Conversation], CommandTable] = {Session: COMMANDS, RemoteSession: CommandTable()}
GROUPS = {  # the files of this folder, in the order in which help and docs show them
    "talk": "The conversation",
    "files": "Files and sessions",
    "models": "Model, residency, template",
    "server": "Model, residency, template of a server",
    "sampling": "How answers are chosen",
    "code": "Edits of files",
    "state": "Information",
}


def command(name: str, *parts: Argument | Option, aliases: Sequence[str] = ()) -> Callable[[Function], Function]:
    """Put a function into the tables of the chats that its first parameter takes, by its type: `Conversation` is any.

    Arguments are passed by name, only those that were given.
    """

    def add(function: Function) -> Function:
        arguments = tuple(part for part in parts if isinstance(part, Argument))
        options = tuple(part for part in parts if isinstance(part, Option))
        group = function.__module__.rpartition(".")[2]
        row = Command(name, function, arguments, options, tuple(aliases), group)
        takes = get_type_hints(function)["chat"]
        for kind, table in _TABLES.items():
            if issubclass(kind, takes):
                table.add(row)
        return function

    return add


def load_commands(kind: type = Session) -> CommandTable:
    """The table of a kind of chat, with every file of `commands/` in it."""
    from lacewing.chat import commands

    for module in sorted(module.name for module in pkgutil.iter_modules(commands.__path__)):
        importlib.import_module(f"{commands.__name__}.{module}")
    return _TABLES[RemoteSession if issubclass(kind, RemoteSession) else Session]


def is_command(line: str) -> bool:
    """Whether a line is a command rather than a message; a message that begins with a slash is written with two."""
    line = without_mark(line).lstrip()
    return line.startswith("/") and not line.startswith("//")


def without_mark(line: str) -> str:
    """Without the byte-order mark that some editors and shells put in front of a text."""
    return line.removeprefix("\ufeff")


def parse_line(line: str, kind: type = Session) -> tuple[Command, dict[str, Any]]:
    """A line such as `/model "my file.gguf" --lazy`, to the command and its arguments. Raises OptionError."""
    name, *rest = without_mark(line).strip().removeprefix("/").split(maxsplit=1) or [""]
    found = load_commands(kind).find(name.lower())
    return found, _Parser(found, rest[0] if rest else "").parse()


def run_line(chat: Conversation, line: str) -> Reply:
    """Parse and run. Raises LacewingError."""
    found, arguments = parse_line(line, type(chat))
    return found(chat, **arguments)


class _Parser:
    def __init__(self, command: Command, text: str):
        self.command, self.text = command, text
        self.values: dict[str, Any] = {}
        self.places = list(command.arguments)
        self.options = {option.name: option for option in command.options}

    def parse(self) -> dict[str, Any]:
        at = 0
        while True:
            at = _skip_spaces(self.text, at)
            if at == len(self.text):
                break
            if self.places and self.places[0].rest and not self._option_at(at):
                self.values[self.places.pop(0).name] = _unquoted(self.text[at:].rstrip())
                break
            word, end, quoted = _word(self.text, at)
            at = self._option(word, end) if word.startswith("--") and not quoted else self._place(word, end)
        missing = next((argument for argument in self.places if argument.required), None)
        if missing is not None:
            raise self._wrong(f"{missing.name} is missing")
        return self.values

    def _option_at(self, at: int) -> bool:
        word, _, quoted = _word(self.text, at)
        return not quoted and word.startswith("--") and word.partition("=")[0][2:] in self.options

    def _option(self, word: str, end: int) -> int:
        name, equals, value = word[2:].partition("=")
        name = known_spelling(name, self.options) or name
        option = self.options.get(name)
        if option is None:
            raise self._wrong(f"unknown option --{name} {did_you_mean(name, self.options)}".rstrip())
        if option.kind is None:
            if equals:
                raise self._wrong(f"--{name} takes no value")
            self.values[name.replace("-", "_")] = True
            return end
        if not equals:
            start = _skip_spaces(self.text, end)
            if start == len(self.text):
                raise self._wrong(f"--{name} needs a value")
            value, end, _ = _word(self.text, start)
        self.values[name.replace("-", "_")] = self._convert(f"--{name}", option.kind, (), value)
        return end

    def _place(self, word: str, end: int) -> int:
        if not self.places:
            problem = f"unexpected argument {word!r}"
            if self.command.arguments and self.command.arguments[-1].kind in ("path", "model", "template", "session"):
                problem += "; put a name with spaces in quotes" + (
                    "" if "--" in self.text else f': /{self.command.name} "{self.text}"'
                )
            raise self._wrong(problem)
        argument = self.places.pop(0)
        self.values[argument.name] = self._convert(argument.name, argument.kind, argument.choices, word)
        return end

    def _convert(self, name: str, kind: str, choices: tuple[str, ...], word: str) -> Any:
        if "\0" in word:  # no name of a file has it
            raise self._wrong(f"{name} is {word!r}; it must not have a null character")
        if chosen := known_spelling(word.lower(), choices):
            return chosen
        if kind == "choice":
            raise self._wrong(f"{name} is {word!r}; it must be one of {', '.join(choices)}")
        if kind == "on/off":
            if word.lower() not in ON_OFF:
                raise self._wrong(f"{name} is {word!r}; it must be {', '.join((*choices, 'on'))} or off")
            return ON_OFF[word.lower()]
        if kind in ("number", "decimal"):
            try:
                return int(word) if kind == "number" else float(word)
            except ValueError:
                what = "a whole number" if kind == "number" else "a number"
                raise self._wrong(f"{name} is {word!r}; it must be {' or '.join((*choices, what))}") from None
        return word

    def _wrong(self, problem: str) -> OptionError:
        return OptionError(f"/{self.command.name}: {problem}; usage: {self.command.usage}")


def _skip_spaces(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _word(text: str, at: int) -> tuple[str, int, bool]:
    """The word at a place, where it ends, and whether it began with a quote. Backslashes are plain, for Windows paths."""
    parts: list[str] = []
    quote, begins_quoted = "", text[at] in "\"'"
    while at < len(text) and (quote or not text[at].isspace()):
        character = text[at]
        at += 1
        if quote and character == quote:
            quote = ""
        elif not quote and character in "\"'" and (not parts or begins_quoted or parts[-1] == "="):
            quote = character
        else:
            parts.append(character)
    if quote:
        raise OptionError(f"a quote {quote} is not closed")
    return "".join(parts), at, begins_quoted


def _unquoted(text: str) -> str:
    """Without the quotes that enclose all of it."""
    enclosed = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" and text[0] not in text[1:-1]
    return text[1:-1] if enclosed else text
