"""What fills the context, and the prompt as it is."""

from __future__ import annotations

import dataclasses

from lacewing.chat.session.formatter import View
from lacewing.chat.session.overflow import fit
from lacewing.chat.session.session import Session
from lacewing.errors import LacewingError, OptionError

_SHOWN = 20_000  # characters of a prompt


def rows(chat: Session) -> list[tuple[str, str, str]]:
    """(what, tokens, share of the context), as the next answer finds it: what the policy is about to hide is hidden."""
    voice, view = chat.voice, next_view(chat)
    system, history = count(chat, view)
    left = voice.context - system - history
    reserve = min(chat.settings.reserve(voice.context), max(left, 0))
    found = [
        ("system", system),
        ("history", history),
        ("reserved for the answer", reserve),
        ("free", max(left - reserve, 0)),
        ("context", voice.context),
    ]
    lines = [(name, f"{tokens:,}", f"{tokens / voice.context:.1%}") for name, tokens in found]
    if left <= 0:
        remedy = "/context drop-oldest, /context summarise or /clear makes room"
        if chat.settings.overflow != "stop":  # it cannot help: what is left has to be shown
            remedy = "a shorter system message or last message, or /clear, makes room"
        lines.append(("too many for an answer", f"{1 - left:,}", remedy))
    if view.hidden:
        done = "summarised" if view.summary else "dropped"
        if view != voice.view:
            done = "by the next answer, which summarises them" if chat.settings.overflow == "summarise" else "by the next answer"
        lines.append((f"hidden from the model: {view.hidden} messages", "", done))
    return lines


def next_view(chat: Session) -> View:
    """What the model will see of the conversation; as it is now where nothing fits."""
    voice = chat.voice
    if not voice.sees(chat.messages):
        return voice.view
    try:
        return fit(voice, chat.messages, chat.settings, None).view
    except LacewingError:
        return voice.view


def count(chat: Session, view: View) -> tuple[int, int]:
    """Tokens of system message, summary and instructions, and tokens of the rest of the prompt."""
    voice, settings = chat.voice, chat.settings
    plain = dataclasses.replace(settings, system=None, code=False)
    shown = chat.messages[view.hidden :]
    try:
        if not shown:
            return _length(voice.visible([], settings, dataclasses.replace(view, hidden=0)), chat), 0
        whole = len(voice.ids(chat.messages, settings, view=view))
        history = len(voice.ids(chat.messages, plain, view=View(view.hidden)))
    except LacewingError:  # the template refuses it
        return _length(voice.visible([], settings, dataclasses.replace(view, hidden=0)), chat), _length(shown, chat)
    return max(whole - history, 0), min(history, whole)


def _length(messages: list[dict[str, str]], chat: Session) -> int:
    return sum(len(chat.voice.tokenizer.encode(each["content"])) for each in messages)


def prompt(chat: Session) -> str:
    """The prompt with its control tokens, and facts about it."""
    if not chat.voice.sees(chat.messages):
        raise OptionError("the model is shown nothing of the conversation yet; say something")
    voice, engine = chat.voice, chat.model.engine
    ids = fit(voice, chat.messages, chat.settings, None).ids
    kept = engine.held(ids)
    text = voice.tokenizer.decode(ids, special=True)
    if len(text) > _SHOWN:
        text = f"{text[: _SHOWN // 2]}\n[...]\n{text[-_SHOWN // 2 :]}"
    stops = [voice.tokenizer.token_text(token) for token in sorted(voice.stop_ids)] + [repr(stop) for stop in voice.stops]
    return (
        f"{text}\n---\n{len(ids)} tokens, keys and values hold the first {kept}; template {voice.template.name}, "
        f"stops at {', '.join(stops) or 'nothing'}"
    )
