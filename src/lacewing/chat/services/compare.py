"""The same message to another model; the conversation and the current model stay as they are."""

from __future__ import annotations

import dataclasses

from lacewing.api import Model
from lacewing.chat.services import swap
from lacewing.chat.services.park import same_file
from lacewing.chat.session.formatter import open_formatter
from lacewing.chat.session.models import OnDevice, Parked
from lacewing.chat.session.overflow import fit
from lacewing.chat.session.session import Session
from lacewing.chat.session.settings import Message
from lacewing.console.output import Columns
from lacewing.errors import Cancelled, OptionError
from lacewing.placement.info import open_headers


def compare(chat: Session, name: str, text: str | None) -> Columns:
    """Both answers. Raises what `/model` raises, and Cancelled."""
    messages, left = list(chat.messages), None
    if text is not None:
        messages.append({"role": "user", "content": text})
    else:
        while messages and messages[-1]["role"] != "user":
            left = str(messages.pop()["content"])
    if not messages:
        raise OptionError("there is no message to compare; send one first, or give a text")
    right, about = _other(chat, name, messages)
    heading = chat.loaded.short_name
    if left is None:
        left, speed = _answer(chat, chat.loaded, messages)
        heading += f" ({speed:.1f} tokens/s)"
    return Columns((heading, about), (left, right))


def _other(chat: Session, name: str, messages: list[Message]) -> tuple[str, str]:
    """The other model's answer, and its name with its speed. As for `/model`, "-" is the last one that was parked."""
    if name == "-":
        if not chat.parked:
            raise OptionError("no model is parked; /compare PATH asks another one")
        return _told(chat, chat.parked[0], messages)
    path = swap.path_of(name, chat.ui)
    parked = next((each for each in chat.parked if same_file(each, path)), None)
    if parked is not None:
        return _told(chat, parked, messages)
    opened = open_headers(path, dataclasses.replace(chat.options, residency="lazy"), chat.ui.cancelled)
    formatter = open_formatter(opened, [], chat.ui.cancelled)
    fit(formatter, messages, chat.settings, None)
    with Model(opened, chat.ui.progress, cancelled=chat.ui.cancelled) as model:
        return _told(chat, OnDevice(formatter, name, model), messages)


def _told(chat: Session, loaded: OnDevice | Parked, messages: list[Message]) -> tuple[str, str]:
    text, speed = _answer(chat, loaded, messages)
    return text, f"{loaded.short_name} ({speed:.1f} tokens/s)"


def _answer(chat: Session, loaded: OnDevice | Parked, messages: list[Message]) -> tuple[str, float]:
    """Text without thoughts, and tokens/s. Raises Cancelled when nothing came."""
    formatter, ui = loaded.formatter, chat.ui
    ids = fit(formatter, messages, chat.settings, None).ids
    stream, splitter = formatter.stream(loaded.model, ids, chat.settings, ui.cancelled, ui.progress), formatter.splitter(ids)
    pieces = [piece for delta in stream for piece in splitter.push(delta)] + splitter.flush()
    if stream.finish_reason == "cancelled":
        raise Cancelled("the comparison was cancelled")
    return "".join(text for kind, text in pieces if kind == "text"), stream.stats.generate_rate
