"""Values of options from the environment and from a configuration file, below those of the command line; `lacewing config`."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lacewing.cli import flags
from lacewing.console.output import Table, aligned_lines, print_facts
from lacewing.errors import OptionError
from lacewing.options import ON_OFF, did_you_mean, known_spelling, shown_value
from lacewing.paths import user_folder, user_path

MAX_BYTES = 256 << 10  # of the file
SECRET = frozenset(("api_key", "server_key"))  # options whose values nobody is shown
_KINDS = {int: "a whole number", float: "a number", bool: "true or false"}
# What no option stands for; every other LACEWING_ variable is that of an option.
VARIABLES = {
    "LACEWING_CONFIG": "The configuration file, instead of the one in the user's folder.",
    "LACEWING_CACHE": "The folder of fetched models, compiled kernels, links to packs, and usage histories of experts.",
    "LACEWING_SESSIONS": "The folder of saved conversations.",
    "LACEWING_AFFINITY": "`0`: the system decides on which CPUs the threads of the CPU backend run. By default each thread of a "
    "step runs on a CPU of its own (Linux), which is given back while other programs need it.",
    "LACEWING_CPU": "The instruction set of the CPU's kernels: amx, avx512, avx2vnni, avx2, neon or portable; by default the "
    "best one.",
    "LACEWING_WEBGPU": "The variants of GPU kernels: none, or several of subgroups, dot, half and units with commas; by default "
    "all that the device supports. dawn or wgpu, alone or beside them, forces Dawn or wgpu-native; by default Dawn "
    "is taken where it is installed and the GPU has matrix units.",
    "LACEWING_WEBGPU_CHECKS": "1 compiles shaders with run-time checks of bounds and loops; slower.",
    "LACEWING_MISTRAL_MAGNITUDE": "apply or skip: whether YaRN's magnitude scales the attention of Mistral Large 3 and Small 4.",
}


@dataclass(frozen=True)
class Setting:
    """An option that the file and the environment may set. `kind`: int, float, bool, or str for everything else."""

    name: str
    flag: str
    kind: type
    several: bool
    commands: tuple[str, ...]
    default: Any
    help: str

    @property
    def variable(self) -> str:
        return f"LACEWING_{self.name.upper()}"

    @property
    def shown_default(self) -> str:
        """For people; empty if the option is not there without being given."""
        return "" if self.default is None or self.several else "off" if self.default is False else str(self.default)


@dataclass(frozen=True)
class Value:
    """A value as the words of a command line, and where it is from."""

    words: tuple[str, ...]
    where: str


def settings(group: Any) -> dict[str, Setting]:
    """All options of all commands, by name."""
    found: dict[str, Setting] = {}
    for command in group.commands.values():
        for each in command.params:
            if each.param_type_name == "option" and each.name not in ("help", "model"):  # a model on the line is no default
                flag = next(option for option in each.opts if option.startswith("--"))
                name, commands = flag[2:].replace("-", "_").removeprefix("default_"), (command.name,)
                commands = (*found[name].commands, command.name) if name in found else commands
                kind = bool if each.is_flag else each.type_descriptor.annotation
                kind = kind if kind in _KINDS else str
                found[name] = Setting(name, flag, kind, each.multiple, commands, each.default, each.help or "")
    return found


def check_kind(what: str, kind: type, value: Any) -> None:
    """Raises OptionError for a value that is not of the kind; `what` names it."""
    if kind in (int, float) and not isinstance(value, bool):
        try:
            if not (isinstance(value, float) and kind is int):
                kind(value)
                return
        except (TypeError, ValueError, OverflowError):
            pass
    elif kind not in _KINDS or (kind is bool and isinstance(value, bool)):
        return
    raise OptionError(f"{what} is {shown_value(value)}; it must be {_KINDS[kind]}")


def path() -> Path:
    """LACEWING_CONFIG, or config.toml in the user's folder for configurations."""
    own = os.environ.get("LACEWING_CONFIG")
    return user_path(own, "LACEWING_CONFIG: ").absolute() if own else user_folder("config") / "config.toml"


def words_for(command: str, given: set[str], known: dict[str, Setting]) -> list[str]:
    """Values of the environment and the file for the options of a command that are not `given`. Raises OptionError."""
    words: list[str] = []
    values = _read(path(), known)
    for setting in known.values():
        option = setting.flag[2:].replace("-", "_")
        if command in setting.commands and option not in given:
            value = _value_of(setting, command, values)
            words += value.words if value else ()
    return words


def _value_of(setting: Setting, command: str | None, values: dict[tuple[str | None, str], Value]) -> Value | None:
    """The environment's, else the file's for this command, else the file's for all."""
    text = os.environ.get(setting.variable)
    if text:
        value: Any = ON_OFF.get(text.lower(), text) if setting.kind is bool else [text] if setting.several else text
        return Value(_words(setting, value, setting.variable), setting.variable)
    return values.get((command, setting.name)) or values.get((None, setting.name))


def _words(setting: Setting, value: Any, where: str) -> tuple[str, ...]:
    """The value as on a command line. Raises OptionError for one that this option cannot have."""
    what = f"{where}: {setting.name}" if where != setting.variable else where
    several = value if isinstance(value, list) and setting.several else [value]
    for each in several:
        if isinstance(each, (dict, list)) or (setting.kind is str and isinstance(each, bool)):
            expected = "texts" if setting.several else _KINDS.get(setting.kind, "text")
            raise OptionError(f"{what} is {shown_value(each)}; it must be {expected}")
        check_kind(what, setting.kind, each)
    if setting.kind is bool:
        return (setting.flag,) if value else ()
    typed = setting.kind(value) if not setting.several else [str(each) for each in several]
    try:
        flags.check(setting.name, typed)
    except OptionError as error:
        plain = str(error).replace(f"`{setting.name}`", setting.name)  # as in the file, not as on the command line
        raise OptionError(f"{where}: {plain}") from None
    return tuple(f"{setting.flag}={each}" for each in several)


def _read(file: Path, known: dict[str, Setting]) -> dict[tuple[str | None, str], Value]:
    """The values of the file, by command (None: all) and name. Raises OptionError, which names the line and the key."""
    from lacewing.formats.files import read_named

    if not file.exists() and "LACEWING_CONFIG" not in os.environ:
        return {}
    try:
        text = read_named(file, MAX_BYTES).decode("utf-8-sig")
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: no TOML, no UTF-8, a number of thousands of digits
        raise OptionError(f"{file} cannot be read: {error}") from None
    commands = {command for setting in known.values() for command in setting.commands}
    return dict(_values(file, text, document, known, commands))


def _values(
    file: Path, text: str, document: dict[str, Any], known: dict[str, Setting], commands: set[str]
) -> Iterator[tuple[tuple[str | None, str], Value]]:
    rows: list[tuple[str, str | None, str, Any]] = []  # table, the command that it is for, key, value
    seen: set[tuple[str | None, str]] = set()
    for key, value in document.items():
        if isinstance(value, dict):
            section = known_spelling(key, commands)
            if section is None:
                hint = did_you_mean(key, commands) or f"commands are {', '.join(sorted(commands))}"
                raise OptionError(f"{file}, line {_line(text, key)}: there is no command {key!r} for a table; {hint}")
            rows += [(key, section, each, inner) for each, inner in value.items()]
        else:
            rows.append(("", None, key, value))
    for table, command, key, value in rows:
        where = f"{file}, line {_line(text, key, table)}"
        allowed = {name: setting for name, setting in known.items() if command is None or command in setting.commands}
        name = known_spelling(key.replace("-", "_"), allowed)
        if name is None:
            hint = did_you_mean(key.replace("-", "_"), allowed) or "`lacewing config` lists the options"
            raise OptionError(f"{where}: there is no option {key!r}{f' of {command}' if command else ''}; {hint}")
        if (command, name) in seen:
            raise OptionError(f"{where}: {key!r} sets {name}, which the file has set before")
        seen.add((command, name))
        yield (command, name), Value(_words(allowed[name], value, where), where)


def _line(text: str, key: str, inside: str = "") -> int:
    """Where a key of the file, or one inside a table, is set, or a table of it begins."""
    section, quoted = "", re.escape(key)
    for number, line in enumerate(text.splitlines(), 1):
        table = re.match(r"\s*\[\s*\"?([\w-]+)", line)
        section = table[1] if table else section
        if (table and table[1] == key and not inside) or (re.match(rf"\s*[\"']?{quoted}[\"']?\s*=", line) and section == inside):
            return number
    return 1


def show(known: dict[str, Setting], *, as_json: bool) -> None:
    """Print where the file is, what is set and from where, and what is allowed."""
    file, rows = path(), []
    values = _read(file, known)
    for setting in known.values():
        tables = [command for command in setting.commands if (command, setting.name) in values]
        for command in (None, *tables):
            value = _value_of(setting, command, values)
            name = f"{command}.{setting.name}" if command and not os.environ.get(setting.variable) else setting.name
            rows.append((name, _shown(setting, value), value.where if value else "default", setting))
    options = [
        {"name": name, "value": value, "from": where, "variable": each.variable, "commands": each.commands, "allowed": each.help}
        for name, value, where, each in rows
    ]
    variables = [{"name": name, "value": os.environ.get(name, ""), "meaning": about} for name, about in VARIABLES.items()]
    facts = {"file": str(file), "exists": file.exists(), "options": options, "variables": variables}
    print_facts(facts, _page, as_json=as_json)


def _page(facts: dict[str, Any]) -> str:
    lines = [f"configuration file: {facts['file']}{'' if facts['exists'] else ' (does not exist)'}"]
    for part, headings in (("options", ("option", "value", "from", "allowed")), ("variables", ("variable", "value", "meaning"))):
        keys = ("name", *headings[1:])
        lines += ["", *aligned_lines(Table(headings, tuple(tuple(str(row[key]) for key in keys) for row in facts[part])))]
    return "\n".join(lines)


def _shown(setting: Setting, value: Value | None) -> str:
    if value is None:
        return setting.shown_default
    if setting.name in SECRET:
        return "(set, not shown)"
    return ", ".join(word.partition("=")[2] if "=" in word else "on" for word in value.words)
