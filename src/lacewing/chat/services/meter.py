"""What fills the context, and the prompt as it is."""

from __future__ import annotations

import dataclasses

from lacewing.chat.session.formatter import VisibleHistory
from lacewing.chat.session.overflow import fit
from lacewing.chat.session.session import Session
from lacewing.errors import LacewingError, OptionError
from lacewing.options import counted

_SHOWN = 20_000  # characters of a prompt


def rows(chat: Session) -> list[tuple[str, str, str]]:
    """(what, tokens, share of the context), as the next answer finds it: what the policy is about to hide is hidden."""
    formatter, history = chat.formatter, next_history(chat)
    system, rest = count(chat, history)
    left = formatter.context - system - rest
    reserve = min(chat.settings.reserve(formatter.context), max(left, 0))
    found = [
        ("system", system),
        ("history", rest),
        ("reserved for the answer", reserve),
        ("free", max(left - reserve, 0)),
        ("context", formatter.context),
    ]
    lines = [(name, f"{tokens:,}", f"{tokens / formatter.context:.1%}") for name, tokens in found]
    if left <= 0:
        remedy = "/context drop-oldest, /context summarise or /clear makes room"
        if chat.settings.overflow != "stop":  # the policy cannot help: the rest has to be visible
            remedy = "a shorter system message or last message, or /clear, makes room"
        lines.append(("too many for an answer", f"{1 - left:,}", remedy))
    if history.hidden:
        done = "summarised" if history.summary else "dropped"
        if history != formatter.history:
            done = "by the next answer, which summarises them" if chat.settings.overflow == "summarise" else "by the next answer"
        lines.append((f"hidden from the model: {counted(history.hidden, 'message')}", "", done))
    return lines


def next_history(chat: Session) -> VisibleHistory:
    """What the model will see of the conversation; unchanged if nothing fits."""
    formatter = chat.formatter
    if not formatter.sees(chat.messages):
        return formatter.history
    try:
        return fit(formatter, chat.messages, chat.settings, None).history
    except LacewingError:
        return formatter.history


def count(chat: Session, history: VisibleHistory) -> tuple[int, int]:
    """Tokens of system message, summary and instructions, and tokens of the rest of the prompt."""
    formatter, settings = chat.formatter, chat.settings
    plain = dataclasses.replace(settings, system=None, code=False)
    shown = chat.messages[history.hidden :]
    try:
        if not shown:
            return _length(formatter.visible([], settings, dataclasses.replace(history, hidden=0)), chat), 0
        whole = len(formatter.ids(chat.messages, settings, history=history))
        rest = len(formatter.ids(chat.messages, plain, history=VisibleHistory(history.hidden)))
    except LacewingError:  # the template refuses it
        return _length(formatter.visible([], settings, dataclasses.replace(history, hidden=0)), chat), _length(shown, chat)
    return max(whole - rest, 0), min(rest, whole)


def _length(messages: list[dict[str, str]], chat: Session) -> int:
    return sum(len(chat.formatter.tokenizer.encode(each["content"])) for each in messages)


def prompt(chat: Session) -> str:
    """The prompt with its control tokens, and facts about it."""
    if not chat.formatter.sees(chat.messages):
        raise OptionError("the model has not seen anything of the conversation yet; send a message first")
    formatter, engine = chat.formatter, chat.model.engine
    ids = fit(formatter, chat.messages, chat.settings, None).ids
    kept = engine.held(ids)
    text = formatter.tokenizer.decode(ids, special=True)
    if len(text) > _SHOWN:
        text = f"{text[: _SHOWN // 2]}\n[...]\n{text[-_SHOWN // 2 :]}"
    stops = [formatter.tokenizer.token_text(token) for token in sorted(formatter.stop_ids)] + [
        repr(stop) for stop in formatter.stops
    ]
    return (
        f"{text}\n---\n{counted(len(ids), 'token')}, the first {kept} in the KV cache; template {formatter.template.name}, "
        f"stops at {', '.join(stops) or 'nothing'}"
    )
