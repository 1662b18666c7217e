"""What fills the context, and the prompt as it is."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from lacewing.chat.overflow import fit
from lacewing.chat.templates import common_prefix
from lacewing.chat.voice import View
from lacewing.errors import LacewingError, OptionError

if TYPE_CHECKING:
    from lacewing.chat.session import Session

_SHOWN = 20_000  # characters of a prompt


def rows(chat: Session) -> list[tuple[str, str, str]]:
    """(what, tokens, share of the context)"""
    voice, settings = chat.voice, chat.settings
    system, history, hidden = count(chat)
    reserve = settings.reserve(voice.context)
    free = voice.context - system - history - reserve
    found = [
        ("system", system),
        ("history", history),
        ("reserved for the answer", reserve),
        ("free", free),
        ("context", voice.context),
    ]
    lines = [(name, f"{tokens:,}", f"{tokens / voice.context:.1%}") for name, tokens in found]
    if hidden:
        lines.append((f"hidden from the model: {hidden} messages", "", "summarised" if voice.view.summary else "dropped"))
    return lines


def count(chat: Session) -> tuple[int, int, int]:
    """Tokens of system message and summary, tokens of the rest of the prompt, and messages that are hidden."""
    voice, settings = chat.voice, chat.settings
    bare = View(voice.view.hidden, None)
    if not chat.messages:
        return len(voice.tokenizer.encode(settings.system or "")), 0, 0
    try:
        whole = len(voice.ids(chat.messages, settings))
        history = len(voice.ids(chat.messages, dataclasses.replace(settings, system=None), view=bare))
    except LacewingError:
        whole = history = sum(len(voice.tokenizer.encode(each["content"])) for each in chat.messages[voice.view.hidden :])
    return whole - history, history, voice.view.hidden


def prompt(chat: Session) -> str:
    """The prompt with its control tokens, and facts about it."""
    if not chat.messages:
        raise OptionError("the conversation is empty")
    voice, engine = chat.voice, chat.model.engine
    ids = fit(voice, chat.messages, chat.settings, None).ids
    kept = common_prefix(engine.cached, ids)
    text = voice.tokenizer.decode(ids, special=True)
    if len(text) > _SHOWN:
        text = f"{text[: _SHOWN // 2]}\n[...]\n{text[-_SHOWN // 2 :]}"
    stops = [voice.tokenizer.token_text(token) for token in sorted(voice.stop_ids)] + [repr(stop) for stop in voice.stops]
    return (
        f"{text}\n---\n{len(ids)} tokens, keys and values hold the first {kept}; template {voice.template.name}, "
        f"stops at {', '.join(stops) or 'nothing'}"
    )
