"""Saves conversations that nobody has saved: at the end of a chat, before another one replaces them, and if a process may end."""

from __future__ import annotations

import contextlib
import os
import re
import weakref
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from lacewing.chat.services import document, kv_files
from lacewing.chat.services.document import SessionFileError
from lacewing.chat.services.files import AUTOMATIC, folder, is_saved, names, newest, path_of, put_last, revision_of, save
from lacewing.chat.services.identity import identity_of
from lacewing.chat.session.conversation import Conversation
from lacewing.chat.session.session import Session
from lacewing.weights.machine import is_running

_RESCUED, _LEFT, _SCRIPT = "autosave", "last", "pipe"  # ended by an error or a signal; left; left in a pipe
_KEPT = 10  # of each, the newest are kept
_KNOWN = "identity"  # of a session: a model, and the identity of its files
_OPEN = f"{_RESCUED}-open"  # of those whose answer is being made, if that may end the process
_mine: set[Path] = set()  # such files of this process


def rescue(chat: Conversation) -> str | None:
    """Save a conversation that is about to be lost, under a name of its own; a line about it. Raises SessionFileError."""
    if is_saved(chat):
        return None
    return f"the conversation is saved: /load {_keep(chat, _RESCUED)}"


def leave(chat: Conversation) -> str | None:
    """Save a conversation that ends; a line about it for a person who leaves it. Raises SessionFileError."""
    if is_saved(chat):
        return None
    _keep(chat, _LEFT if chat.ui.interactive else _SCRIPT)
    return "the conversation is kept: lacewing chat --resume continues it" if chat.ui.interactive else None


def offer(chat: Conversation) -> list[str]:
    """Save a conversation that is about to be replaced, if a person who is there wants that; lines about it."""
    if is_saved(chat) or not chat.ui.interactive or not chat.ui.confirm("the conversation is not saved. Save it first?"):
        return []
    return save(chat, _free_name("saved"))


def _keep(chat: Conversation, kind: str) -> str:
    """Its name. One that was kept before, and has only grown since, keeps its name."""
    name = _same_name(chat, kind) or _free_name(kind)
    save(chat, name, force=True)
    _drop_old(kind, [name])
    return name


def _same_name(chat: Conversation, kind: str) -> str | None:
    saved = chat.saved
    if saved is None or not saved.path.stem.startswith(f"{kind}-") or not AUTOMATIC.fullmatch(saved.path.stem):
        return None
    grown = document.kept_of(chat.messages)[: len(saved.messages)] == saved.messages
    return saved.path.stem if grown and revision_of(saved.path) == saved.revision else None


def _free_name(kind: str, when: datetime | None = None, process: int | str | None = None) -> str:
    first = f"{kind}-{when or datetime.now():%Y%m%d-%H%M%S}-{process or os.getpid()}"
    taken, count, name = set(names()), 1, first
    while name in taken:
        count, name = count + 1, f"{first}-{count}"
    return name


def _drop_old(kind: str, spared: Iterable[str]) -> None:
    """Remove what is older than the newest, but never what was just written, whatever its name and its time are."""
    for old in [name for name in newest(AUTOMATIC) if re.match(rf"{kind}-\d", name)][_KEPT:]:
        if old not in spared:
            with contextlib.suppress(OSError):
                path_of(old).unlink()


def autosave(chat: Conversation) -> None:
    """Save a conversation before work that may end the process; `clean_up` removes it. Raises SessionFileError."""
    if is_saved(chat):
        return
    saved, identity = chat.saved, None
    if isinstance(chat, Session):
        info, identity = chat.extras.get(_KNOWN, (None, None))
        if info is None or info() is not chat.current.info:  # reading from a hundred files takes a while
            identity = identity_of(chat.current.info)
            chat.extras[_KNOWN] = weakref.ref(chat.current.info), identity
    name = f"{_OPEN}-{os.getpid()}"
    try:
        _mine.add(path_of(name))
        save(chat, name, force=True, identity=identity)
    finally:
        chat.saved = saved  # a person has not saved it


def clean_up() -> None:
    """Remove what `autosave` has left in this process."""
    path = path_of(f"{_OPEN}-{os.getpid()}")
    if path in _mine:
        with contextlib.suppress(OSError):
            path.unlink()


def recover() -> list[str]:
    """The names of conversations whose process ended in the middle of an answer; they get names as `rescue` gives them.

    What saves that failed have left is removed.
    """
    found = []
    for name in newest(re.compile(rf"{_OPEN}-\d{{1,20}}"))[::-1]:
        path, process = path_of(name), name.rpartition("-")[2]
        if path in _mine or (int(process) != os.getpid() and is_running(int(process))):  # an earlier process had our number
            continue
        with contextlib.suppress(OSError):
            new = _free_name(_RESCUED, _date_of(path), process)
            path.rename(path_of(new))
            put_last(path_of(new))
            found.append(new)
    _drop_old(_RESCUED, found)
    with contextlib.suppress(OSError):
        kv_files.remove_left_over(folder())
    return found


def _date_of(path: Path) -> datetime | None:
    """When it was changed; None for a date that no clock shows."""
    with contextlib.suppress(ValueError, OverflowError):
        return datetime.fromtimestamp(path.stat().st_mtime)
    return None


def resume(model: str | None = None) -> tuple[str, str]:
    """The model and the session with which a chat goes on: those that were saved or left last, or another model.

    Raises SessionFileError if nothing is kept, or if the file of the model is gone and no other one is named.
    """
    head, path = last_kept()
    if model is None and "://" in head.path:
        again = f"lacewing chat --server {head.path} --resume"
        raise SessionFileError(f"the last conversation was held with {head.model} of a server: {again} continues it there")
    if model is None and not os.path.exists(head.path):
        raise SessionFileError(
            f"{head.model}, with which the last conversation was held, is no longer at {head.path}; "
            "lacewing chat MODEL --resume continues it with another model"
        )
    return model or head.path, path


def last_kept() -> tuple[document.Head, str]:
    """What is known of the conversation that was saved or left last, and its file. Raises SessionFileError if none is kept."""
    found = [name for name in newest() if not name.startswith(_OPEN)]
    if not found:
        raise SessionFileError(f"no conversation is kept in {folder()}")
    path = folder() / f"{found[0]}.json"
    return document.read_head(path), str(path)
