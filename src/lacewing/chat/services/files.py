"""Sessions on disk: saved whole or not at all, loaded on the same model or on another one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from textwrap import shorten
from typing import Any

from lacewing.chat.services import atomic, document, templates
from lacewing.chat.services.document import SessionFileError
from lacewing.chat.services.identity import Identity, identity_of
from lacewing.chat.session.formatter import ChatFormatter, VisibleHistory
from lacewing.chat.session.session import Session
from lacewing.errors import LacewingError, ModelFormatError, OptionError
from lacewing.options import counted, format_bytes, user_folder, user_path

_NAME = re.compile(r"[\w][\w .-]{0,80}")
_NOTE = 80  # characters of a row of the table of sessions
SAVED_AS, SAVED_MESSAGES = "session", "saved_messages"  # of a session: the name of its file, and what that has


def folder() -> Path:
    """LACEWING_SESSIONS, or where this system keeps a user's data. Not made here."""
    own = os.environ.get("LACEWING_SESSIONS")
    if own:
        return user_path(own, "LACEWING_SESSIONS: ").absolute()
    return user_folder("data") / "sessions"


def path_of(name: str) -> Path:
    """A session's file: a path (with a separator, or .json at its end), which gets that ending, or a name in `folder`."""
    if name.endswith(".json") or "/" in name or "\\" in name:
        return _as_path(name)
    if not _NAME.fullmatch(name):
        raise OptionError(f"{name!r} cannot name a session; use letters, digits, spaces, dots and dashes, or a path")
    return folder() / f"{name}.json"


def _as_path(name: str) -> Path:
    path = user_path(name)
    if name.endswith(("/", "\\")) or path.is_dir():
        raise OptionError(f"{name} is a folder; give the session in it a name, such as {path / 'chat.json'}")
    return path if path.suffix == ".json" else path.with_name(f"{path.name}.json")


def save(chat: Session, name: str, kv_cache: bool = False, identity: Identity | None = None) -> list[str]:
    """Write the session; what was written, in lines. Raises SessionFileError; what was saved before is then still there."""
    path, formatter = path_of(name), chat.formatter
    parts: dict[str, Any] = {
        "saved": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": (identity or current_identity(chat)).as_dict(),
        "template": {"choice": formatter.choice, "sha256": formatter.template.sha256},
        "settings": document.settings_to(chat.settings),
        "messages": [document.message_of(each) for each in chat.messages],
        "view": {"hidden": formatter.history.hidden, "summary": formatter.history.summary},
        "keys_values": None,
    }
    lines = [f"saved {counted(len(chat.messages), 'message')} to {path}"]
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True)
            lines += [f"made the folder {path.parent}"] if path.parent != folder() else []
        if kv_cache:
            parts["keys_values"] = _write_kv_cache(chat, path, lines)
        atomic.write(path, document.encode(parts))
    except OSError as error:
        problem = f"could not be written: {error.strerror}"
        raise SessionFileError(problem, path, "the file from before is unchanged") from None
    _remove_others(path, parts["keys_values"])
    chat.extras[SAVED_MESSAGES] = list(parts["messages"])
    return lines


def current_identity(chat: Session) -> Identity:
    """Of the current model; without a hash if its file is gone, which loses the KV cache but not the conversation."""
    try:
        return identity_of(chat.current.info)
    except ModelFormatError:
        path, spec = chat.current.info.checkpoint.path, chat.current.info.spec
        return Identity(str(path.absolute()), 0, f"gone {os.getpid()}", spec.name, spec.architecture)


def _write_kv_cache(chat: Session, path: Path, lines: list[str]) -> dict[str, Any] | None:
    """Under a name of its own content, so that an older session file keeps its own until it is replaced."""
    ids, data = chat.model.read_state()
    if not ids:
        lines.append("without the KV cache: it is empty")
        return None
    digest = hashlib.sha256(data).hexdigest()
    file = path.with_name(f"{path.stem}.{digest[:16]}.kv")
    atomic.write(file, data)
    lines.append(f"with the KV cache of {counted(len(ids), 'token')}, {format_bytes(len(data))}")
    return {"file": file.name, "nbytes": len(data), "sha256": digest, "ids": ids, "device": device_of(chat)}


def _remove_others(path: Path, kept: dict[str, Any] | None) -> None:
    """KV caches that no session file names any more."""
    pattern = re.compile(re.escape(path.stem) + r"\.[0-9a-f]{16}\.kv")
    for other in path.parent.iterdir():
        if pattern.fullmatch(other.name) and (kept is None or other.name != kept["file"]):
            with contextlib.suppress(OSError):
                other.unlink()


def device_of(chat: Session) -> str:
    """What a KV cache depends on besides the model."""
    from lacewing.engine.saved import kv_type

    return f"{_hardware_of(chat)} {kv_type(chat.model.step.groups)}"


def _hardware_of(chat: Session) -> str:
    facts = chat.model.backend.facts()
    return f"{facts.backend} {' '.join(facts.features)}"


def _may_use(chat: Session, facts: dict[str, Any]) -> bool:
    """Whether the KV cache is of this device; in sessions of version 1 the bytes of a value tell the KV type."""
    from lacewing.engine.saved import kv_type

    itemsize = {"f16": 2, "f32": 4}.get(kv_type(chat.model.step.groups))
    return facts["device"] in (device_of(chat), f"{_hardware_of(chat)} {itemsize}")


def load(chat: Session, name: str) -> list[str]:
    """Bring a saved conversation into the session; what a person should know, in lines.

    Raises SessionFileError; nothing of the running session is then lost.
    """
    path = path_of(name)
    found = read(path)
    settings = document.settings_from(path, found["settings"])
    saved = Identity(**found["model"])
    same = saved.same_model(current_identity(chat))
    lines = [f"loaded {counted(len(found['messages']), 'message')} from {path}, saved {found['saved']}"]
    formatter = _formatter(chat, found["template"], same, lines)
    chat.replace(found["messages"])
    chat.extras[SAVED_MESSAGES] = [dict(each) for each in found["messages"]]
    chat.settings, chat.current.formatter = settings, formatter
    if not same:
        lines.append(f"it was saved with {saved.name} ({saved.path}): the conversation will be reprocessed")
        return lines
    hidden = found["view"]["hidden"]
    if 0 <= hidden <= len(chat.messages):
        formatter.history = VisibleHistory(hidden, found["view"]["summary"])
    if found["keys_values"] is not None:
        lines.append(_read_kv_cache(chat, path, found["keys_values"]))
    return lines


def _formatter(chat: Session, saved: dict[str, str], same: bool, lines: list[str]) -> ChatFormatter:
    """The formatter with the template of a saved session; what a person should know of it is added to `lines`."""
    choice = saved["choice"]
    try:
        template = templates.find(chat, choice)
        if template.sha256 != saved["sha256"] and (same or choice != "auto"):
            lines.append(f"its template {choice} has changed since: the conversation is rendered with the new version")
        if missing := templates.missing_tokens(template, chat):
            lines.append(f"its template {choice} writes {', '.join(missing)}, which this model reads as plain text; see /template")
        return (
            chat.formatter.with_template(template, choice) if template.sha256 != chat.formatter.template.sha256 else chat.formatter
        )
    except LacewingError as error:
        lines.append(f"its template {choice} cannot be used ({error}); {chat.formatter.template.name} is kept")
        return chat.formatter


def read(path: Path) -> dict[str, Any]:
    """The parts of a session file. Raises SessionFileError."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise SessionFileError("is not a file", path)
        with path.open("rb") as file:
            data = file.read(document.MAX_BYTES + 1)
    except OSError as error:
        raise SessionFileError(f"cannot be read: {error.strerror}", path) from None
    if len(data) > document.MAX_BYTES:
        raise SessionFileError(f"has more than {format_bytes(document.MAX_BYTES)}: it is not a session file", path)
    return document.decode(path, data)


def _read_kv_cache(chat: Session, path: Path, facts: dict[str, Any]) -> str:
    """Load the KV cache, if it is whole and of this device; a line that says whether it was."""
    from lacewing.engine.saved import VERSIONS, state_size

    engine, ids = chat.model.engine, facts["ids"]
    if not _may_use(chat, facts):
        return "its KV cache is of another device: the conversation will be reprocessed"
    if len(ids) > engine.context or not all(type(each) is int and 0 <= each < engine.vocab_size for each in ids):
        return f"its KV cache of {counted(len(ids), 'token')} does not fit this context: the conversation will be reprocessed"
    expected = [state_size(chat.model.step.groups, len(ids), version) for version in VERSIONS]
    try:
        if os.path.basename(facts["file"]) != facts["file"]:
            raise SessionFileError("its file is in another folder")
        file = path.with_name(facts["file"])
        if file.exists() and not file.is_file():  # a pipe would be waited for
            raise SessionFileError("it is not a file")
        data = file.read_bytes() if facts["nbytes"] in expected else b""
    except OSError as error:
        return f"its KV cache cannot be read ({error.strerror}): the conversation will be reprocessed"
    except ValueError:  # with a NUL, or half a character
        return "its KV cache has an invalid file name: the conversation will be reprocessed"
    except SessionFileError as error:
        return f"its KV cache is not used ({error}): the conversation will be reprocessed"
    if len(data) not in expected or hashlib.sha256(data).hexdigest() != facts["sha256"]:
        return "its KV cache is damaged: the conversation will be reprocessed"
    try:
        chat.model.write_state(ids, data)
    except OptionError as error:
        return f"its KV cache is not used ({error}): the conversation will be reprocessed"
    return f"the KV cache of {counted(len(ids), 'token')} is loaded: nothing has to be reprocessed"


def names() -> list[str]:
    """Of the saved sessions."""
    return sorted(path.stem for path in folder().glob("*.json")) if folder().is_dir() else []


def listing() -> Iterator[tuple[str, str, str, str, str]]:
    """(name, saved, messages, model, what is kept or wrong)"""
    for name in names():
        try:
            found = read(folder() / f"{name}.json")
        except SessionFileError as error:
            yield name, "", "", "", shorten(error.problem, _NOTE, placeholder=" ...")
            continue
        kept = found["keys_values"]
        note = f"KV cache of {counted(len(kept['ids']), 'token')}" if kept else ""
        yield name, found["saved"].replace("T", " ")[:16], str(len(found["messages"])), found["model"]["name"], note
