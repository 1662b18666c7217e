"""Commands about how the next token is chosen. Without a value they show the current one; `default` restores the default."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from lacewing.chat.commands.table import COMMANDS, Argument, Reply, command
from lacewing.chat.session.conversation import Conversation
from lacewing.options import Sampling

_DEFAULTS = {each.name: getattr(Sampling(), each.name) for each in dataclasses.fields(Sampling)}


def _set(chat: Conversation, name: str, value: Any, none: str = "off") -> Reply:
    """Show or change one field of Sampling; `none` is the word for None."""
    before = getattr(chat.settings.sampling, name)
    if value is not None:
        chosen = _DEFAULTS[name] if value == "default" else None if value == none else value
        chat.settings = chat.settings.with_sampling(**{name: chosen})
    now = getattr(chat.settings.sampling, name)
    title = name.replace("_", " ")
    return Reply(f"{title} {spelled(now, none)}" + (f" (was {spelled(before, none)})" if now != before else ""))


def spelled(value: Any, none: str = "off") -> str:
    """A value as its command takes it."""
    return none if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def spelled_settings(sampling: Sampling) -> Iterator[tuple[str, str]]:
    """(command, value) of each field that has a command."""
    for each in dataclasses.fields(Sampling):
        value = getattr(sampling, each.name)
        if each.name == "stop":
            yield "/stop", ", ".join(map(repr, value)) or "off"
        elif (found := each.name.replace("_", "-")) in COMMANDS.rows:
            yield f"/{found}", spelled(value, "random" if each.name == "seed" else "off")


@command("temperature", Argument("value", "decimal", ("default",)), aliases=("temp",))
def temperature(chat: Conversation, value: float | str | None = None) -> Reply:
    """How freely tokens are chosen: 0 always takes the likeliest one."""
    return _set(chat, "temperature", value)


@command("top-k", Argument("value", "number", ("default",)))
def top_k(chat: Conversation, value: int | str | None = None) -> Reply:
    """Choose from the K likeliest tokens only; 0 is off."""
    return _set(chat, "top_k", value)


@command("top-p", Argument("value", "decimal", ("default",)))
def top_p(chat: Conversation, value: float | str | None = None) -> Reply:
    """Choose from the likeliest tokens that together reach this probability only; 1 is off."""
    return _set(chat, "top_p", value)


@command("min-p", Argument("value", "decimal", ("default",)))
def min_p(chat: Conversation, value: float | str | None = None) -> Reply:
    """Choose from tokens at least this fraction as likely as the likeliest one only; 0 is off."""
    return _set(chat, "min_p", value)


@command("repeat-penalty", Argument("value", "decimal", ("default",)))
def repeat_penalty(chat: Conversation, value: float | str | None = None) -> Reply:
    """Make tokens from the last part of the conversation less likely; 1 is off."""
    return _set(chat, "repeat_penalty", value)


@command("repeat-guard", Argument("tokens", "number", ("off", "default")))
def repeat_guard(chat: Conversation, tokens: int | str | None = None) -> Reply:
    """End an answer that has repeated itself for this many tokens; `off` lets it go on."""
    return _set(chat, "repeat_guard", 0 if tokens == "off" else tokens)


@command("seed", Argument("value", "number", ("random", "default")))
def seed(chat: Conversation, value: int | str | None = None) -> Reply:
    """The same seed gives the same answer to the same conversation; `random` draws another one each time."""
    return _set(chat, "seed", value, none="random")


@command("max-tokens", Argument("value", "number", ("off", "default")))
def max_tokens(chat: Conversation, value: int | str | None = None) -> Reply:
    """End an answer after this many tokens; `off` ends it where the model does or the context is full."""
    return _set(chat, "max_tokens", value)


@command("stop", Argument("text", rest=True))
def stop(chat: Conversation, text: str | None = None) -> Reply:
    """Add a text at which answers end; `/stop off` removes all, without a text they are listed."""
    stops = chat.settings.sampling.stop
    if text is not None:
        stops = () if text == "off" else tuple(dict.fromkeys((*stops, text.replace("\\n", "\n"))))
        chat.settings = chat.settings.with_sampling(stop=stops)
    return Reply(f"answers end at {', '.join(map(repr, stops))}" if stops else "no stop text is set")
