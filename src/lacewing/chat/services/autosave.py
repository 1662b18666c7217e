"""Saves unsaved conversations if the chat ends by an error or a signal, or if a driver ends the process."""

from __future__ import annotations

import contextlib
import os
import re
import weakref
from datetime import datetime

from lacewing.chat.services import document
from lacewing.chat.services.files import SAVED_MESSAGES, current_identity, names, path_of, save
from lacewing.chat.session.session import Session
from lacewing.weights.machine import is_running

_RESCUED, _KEPT = "autosave", 10  # the newest are kept
_KNOWN = "identity"  # of a session: a model, and the identity of its files
_OPEN = f"{_RESCUED}-open"  # of those whose answer is being made, if that may end the process


def rescue(chat: Session) -> str | None:
    """Save a conversation that is about to be lost, under a name of its own; a line about it. Raises SessionFileError."""
    if _is_saved(chat):
        return None
    name = f"{_RESCUED}-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
    save(chat, name)
    _drop_old()
    return f"the conversation is saved: /load {name}"


def _is_saved(chat: Session) -> bool:
    return not chat.messages or [document.message_of(each) for each in chat.messages] == chat.extras.get(SAVED_MESSAGES)


def _drop_old() -> None:
    for old in [each for each in names() if re.match(rf"{_RESCUED}-\d", each)][:-_KEPT]:
        with contextlib.suppress(OSError):
            path_of(old).unlink()


def autosave(chat: Session) -> None:
    """Save a conversation before work that may end the process; `clean_up` removes it. Raises SessionFileError."""
    if _is_saved(chat):
        return
    saved = chat.extras.get(SAVED_MESSAGES)
    info, identity = chat.extras.get(_KNOWN, (None, None))
    if info is None or info() is not chat.current.info:  # reading from a hundred files takes a while
        identity = current_identity(chat)
        chat.extras[_KNOWN] = weakref.ref(chat.current.info), identity
    try:
        save(chat, f"{_OPEN}-{os.getpid()}", identity=identity)
    finally:
        chat.extras[SAVED_MESSAGES] = saved  # a person has not saved it


def clean_up() -> None:
    """Remove what `autosave` has left in this process."""
    with contextlib.suppress(OSError):
        path_of(f"{_OPEN}-{os.getpid()}").unlink()


def recover() -> list[str]:
    """The names of conversations whose process ended in the middle of an answer; they get names as `rescue` gives them."""
    found = []
    for name in [each for each in names() if re.fullmatch(rf"{_OPEN}-\d+", each)]:
        if is_running(int(name.rpartition("-")[2])):
            continue
        with contextlib.suppress(OSError):
            path = path_of(name)
            when = datetime.fromtimestamp(path.stat().st_mtime)
            new = f"{_RESCUED}-{when:%Y%m%d-%H%M%S}-{name.rpartition('-')[2]}"
            path.rename(path_of(new))
            found.append(new)
    _drop_old()
    return found
