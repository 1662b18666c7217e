"""Words of a command line to options: either spelling, what may have been meant, and values of the environment and the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import typer.core

from lacewing.cli import config
from lacewing.cli.flags import GIVEN
from lacewing.errors import OptionError
from lacewing.options import did_you_mean, known_spelling

_EARLY = ("-q", "--quiet", "-v", "--verbose")  # may stand in front of the command too


class Command(typer.core.TyperCommand):
    """A command whose options have values of the environment and of the configuration file where the words give none."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:  # when a shell asks for completions, nothing is wrong yet
            name, group = str(self.name), ctx.find_root().command
            words, given = _checked(args, _by_option(self), f"lacewing {name}")
            args = [*(config.words_for(name, given, config.settings(group)) if isinstance(group, Group) else ()), *words]
            ctx.meta[GIVEN] = given
        return super().parse_args(ctx, args)


class Group(typer.core.TyperGroup):
    """The commands. A model in the place of a command is `chat` with it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        early = next((place for place, word in enumerate(args) if word not in _EARLY), 0)
        args = [*args[early : early + 1], *args[:early], *args[early + 1 :]]
        if args and args[0].startswith("-") and not ctx.resilient_parsing:
            _checked(args[:1], _by_option(self), "lacewing")
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if not ctx.resilient_parsing:
            name = known_spelling(args[0], self.commands)
            args = [name, *args[1:]] if name else ["chat", *args]
            if name is None:
                self._check_model(args[1])
        return super().resolve_command(ctx, args)

    def _check_model(self, word: str) -> None:
        """Raise OptionError, with what may have been meant, for what is no model either."""
        from lacewing import hub
        from lacewing.cli.models import names_model

        if not names_model(word):
            hint = did_you_mean(word, [*self.commands, *hub.known_names()])
            hint = hint or "`lacewing --help` lists the commands, `lacewing list` the models"
            raise OptionError(f"there is no command or model {word!r}; {hint}")


def _by_option(command: Any) -> dict[str, Any]:
    return {option: parameter for parameter in command.params for option in parameter.opts if option.startswith("-")} | {
        option: None for option in ("--help", "-h")
    }


def _checked(args: Iterable[str], known: Mapping[str, Any], command: str) -> tuple[list[str], set[str]]:
    """The words, options in our spelling, and the names of the options among them. Raises OptionError."""
    words: list[str] = []
    given: set[str] = set()
    rest = iter(args)
    for word in rest:
        if word == "--":
            return [*words, word, *rest], given
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if not name.startswith("-") or (name not in known and not name.startswith("--")):
            words.append(word)  # short options in one word are left to typer
            continue
        found = known_spelling(name, known)
        if found is None:
            raise OptionError(f"there is no option {name}; {did_you_mean(name, known) or f'{command} --help lists them'}")
        parameter = known[found]
        words.append(f"{found}{equals}{value}")
        if parameter is None:
            continue
        given.add(parameter.name)
        if parameter.is_flag and equals:
            raise OptionError(f"{found} takes no value; {command} --help describes it")
        if not parameter.is_flag:
            if not equals:
                following = next(rest, None)
                if following is None:
                    raise OptionError(f"{found} needs a value; {command} --help describes it")
                value = following
                words.append(value)
            config.check_kind(found, parameter.type_descriptor.annotation, value)
    return words, given
