"""Sessions on disk: saved whole or not at all, loaded on the same model or on another one, listed, renamed, deleted."""

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

from lacewing.chat.services import atomic, document, kv_files, templates
from lacewing.chat.services.document import SessionFileError
from lacewing.chat.services.identity import Identity, model_of, template_of
from lacewing.chat.session.conversation import Conversation
from lacewing.chat.session.formatter import ChatFormatter, VisibleHistory
from lacewing.chat.session.session import Session
from lacewing.chat.session.settings import Message, SavedAs
from lacewing.errors import LacewingError, OptionError
from lacewing.options import counted
from lacewing.paths import user_folder, user_path

_NAME = re.compile(r"[\w][\w .-]{0,80}")
# Names of conversations that nobody named: at the end of a chat, when it was ended, or when its process died.
AUTOMATIC = re.compile(r"(autosave|last|pipe)-\d{8}-\d{6}-\d+(-\d+)?|autosave-open-\d+")
_NOTE = 80  # characters of a row of the table of sessions
_START = 4096  # bytes of a file, with its checksum, that tell whether it is still the same
_TICK = 1_000_000  # ns
_SHOWN = 4000  # characters of a message after /load


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


def revision_of(path: Path) -> str | None:
    """Another text after each change of a session's file; None if there is none. Raises SessionFileError for what is no file."""
    try:
        if not path.exists():
            return None
    except OSError as error:  # a folder that may not be entered
        raise SessionFileError(f"cannot be opened: {error.strerror}", path) from None
    start, size = document.read_bytes(path, _START)  # the start has a checksum of all
    return f"{size} {hashlib.sha256(start).hexdigest()}"


def is_saved(chat: Conversation) -> bool:
    """Whether nothing of the conversation is lost with the session: its file has it still."""
    saved = chat.saved
    if saved is None or not chat.messages:
        return not chat.messages
    with contextlib.suppress(SessionFileError):
        return document.kept_of(chat.messages) == saved.messages and revision_of(saved.path) == saved.revision
    return False


def save(chat: Conversation, name: str, kv_cache: bool = False, force: bool = False, identity: Identity | None = None) -> list[str]:
    """Write the session; what was written, in lines. A file that is not the one that this session saved or loaded is not
    replaced before a person agrees, or with `force`.

    Raises SessionFileError, and OptionError or Cancelled for such a file; what was saved before is then still there.
    """
    path = path_of(name)
    there = revision_of(path)
    if not force:
        _ask_to_replace(chat, name, path, there)
    parts: dict[str, Any] = {
        "saved": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": (identity or model_of(chat)).as_dict(),
        "template": template_of(chat),
        "settings": document.settings_to(chat.settings),
        "messages": document.kept_of(chat.messages),
        "view": {"hidden": chat.history.hidden, "summary": chat.history.summary},
        "keys_values": None,
    }
    lines = [f"saved {counted(len(chat.messages), 'message')} to {path}"]
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True)
            lines += [f"made the folder {path.parent}"] if path.parent != folder() else []
        revision = _write(chat, path, parts, there, lines if kv_cache else None)
    except OSError as error:
        problem = f"could not be written: {error.strerror}"
        raise SessionFileError(problem, path, "the file from before is unchanged") from None
    chat.saved = SavedAs(path.absolute(), revision, parts["messages"])
    return lines


def _ask_to_replace(chat: Conversation, name: str, path: Path, there: str | None) -> None:
    mine = chat.saved is not None and chat.saved.path == path.absolute()
    if there is None or (mine and chat.saved is not None and chat.saved.revision == there):
        return
    what = "has changed since this chat loaded or saved it" if mine else f"exists and is {_described(path)}"
    word = f'"{name}"' if " " in name else name
    chat.ui.ask(f"{path} {what}. Replace it?", f"{path} {what}; /save {word} --force replaces it")


def _described(path: Path) -> str:
    try:
        head = document.read_head(path)
    except SessionFileError:
        return "no session that can be read"
    return f"another conversation of {counted(head.count, 'message')}, saved {_time(head.saved)}"


def _write(chat: Conversation, path: Path, parts: dict[str, Any], there: str | None, kv_lines: list[str] | None) -> str:
    """The new revision. `there`: the one that may be replaced. A KV cache that is new goes if its JSON cannot be written."""
    new_file: Path | None = None
    if kv_lines is not None and isinstance(chat, Session):
        parts["keys_values"], new_file = kv_files.write(chat, path, kv_lines)
    try:
        data = document.encode(parts)
        with atomic.locked(path.parent):
            if revision_of(path) != there:
                raise SessionFileError("was changed by another chat at the same time", path, "nothing was saved")
            before = _kv_of(path)
            atomic.write(path, data)
            put_last(path)
            kept = parts["keys_values"]
            with contextlib.suppress(OSError):
                kv_files.remove_others(path, kept and kept["file"], before)
    except BaseException:
        if new_file is not None:
            new_file.unlink(missing_ok=True)
        raise
    return f"{len(data)} {hashlib.sha256(data[:_START]).hexdigest()}"


def _kv_of(path: Path) -> str | None:
    with contextlib.suppress(SessionFileError):
        kv = document.read_head(path).kv if path.exists() else None
        return kv[0] if kv else None
    return None


def put_last(path: Path) -> None:
    """Date a session after all others of the folder, whatever the clock said then: their order is that of their saving."""
    with contextlib.suppress(SessionFileError, OSError, OverflowError):
        others = [_changed(other) for other in _all() if other != path]
        if path.parent == folder() and others and _changed(path) <= max(others):
            os.utime(path, ns=(max(others)[0] + _TICK,) * 2)


def _changed(path: Path) -> tuple[int, int]:
    """In nanoseconds; where dates end, the time of the entry decides."""
    with contextlib.suppress(OSError):
        facts = path.stat()
        return facts.st_mtime_ns, facts.st_ctime_ns
    return 0, 0


def check(name: str) -> None:
    """Raise SessionFileError for a session that cannot be loaded, before anything is done for it."""
    path = path_of(name)
    document.settings_from(path, document.read(path)["settings"])


def load(chat: Conversation, name: str) -> list[str]:
    """Bring a saved conversation into the session; what a person should know, in lines, the last exchange at their end.

    Raises SessionFileError; nothing of the running session is then lost.
    """
    path = path_of(name)
    revision = revision_of(path)
    found = document.read(path)
    settings = document.settings_from(path, found["settings"])
    saved = Identity(**found["model"])
    same = saved.same_model(model_of(chat))
    lines = [f"loaded {counted(len(found['messages']), 'message')} from {path}, saved {_time(found['saved'])}"]
    if isinstance(chat, Session):
        chat.replace(found["messages"], settings, _formatter(chat, found["template"], same, lines))
    else:
        chat.replace(found["messages"], settings)
    chat.saved = SavedAs(path.absolute(), revision or "", document.kept_of(found["messages"]))
    hidden = found["view"]["hidden"]
    if not same:
        lines.append(f"it was saved with {saved.name} ({saved.path}): the conversation will be reprocessed")
    elif 0 <= hidden <= len(chat.messages):
        chat.history = VisibleHistory(hidden, found["view"]["summary"])
    if same and found["keys_values"] is not None and isinstance(chat, Session):
        lines.append(kv_files.read(chat, path, found["keys_values"]))
    if chat.replaced and chat.replaced[-1].after == chat.messages:
        before = counted(len(chat.replaced[-1].messages), "message")
        lines.append(f"/undo goes back to the previous conversation, {before}")
    return [*lines, _last_exchange(chat.messages)] if chat.messages else lines


def _last_exchange(messages: list[Message]) -> str:
    asked = [at for at, each in enumerate(messages) if each["role"] == "user"]
    shown = messages[asked[-1] if asked else 0 :]
    return "\n\n".join(f"{speaker(each)}: {_shortened(each['content'].strip())}" for each in shown)


def speaker(message: Message) -> str:
    return "You" if message["role"] == "user" else "Model"


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}\n[... /show prints all ...]\n{text[-_SHOWN // 2 :]}"


def _formatter(chat: Session, saved: dict[str, str], same: bool, lines: list[str]) -> ChatFormatter:
    """The formatter with the template of a saved session; what a person should know of it is added to `lines`."""
    choice = saved["choice"]
    try:
        template = templates.find(chat, choice)
        if template.sha256 != saved["sha256"] and (same or choice != "auto"):
            lines.append(f"its template {choice} has changed since: the conversation is rendered with the new version")
        if missing := templates.missing_tokens(template, chat):
            lines.append(f"its template {choice} writes {', '.join(missing)}, which this model reads as plain text; see /template")
        changed = template.sha256 != chat.formatter.template.sha256
        return chat.formatter.with_template(template, choice) if changed else chat.formatter
    except LacewingError as error:
        lines.append(f"its template {choice} cannot be used ({error}); {chat.formatter.template.name} is kept")
        return chat.formatter


def _all() -> list[Path]:
    """Raises SessionFileError for a folder that cannot be listed."""
    try:
        return sorted(folder() / name for name in os.listdir(folder()) if name.endswith(".json"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise SessionFileError(f"cannot be listed: {error.strerror}", folder()) from None


def names() -> list[str]:
    """Of the saved sessions. Raises SessionFileError for a folder that cannot be listed, as `newest` and `listing` do."""
    return [path.stem for path in _all()]


def newest(pattern: re.Pattern[str] = re.compile(".*")) -> list[str]:
    """The names that match, the one that changed last first."""
    return [path.stem for path in sorted(_all(), key=_changed, reverse=True) if pattern.fullmatch(path.stem)]


def listing() -> Iterator[tuple[str, str, str, str, str]]:
    """(name, saved, messages, model, what is kept or wrong); the newest first. Of each only its first line is read."""
    for name in newest():
        try:
            head = document.read_head(folder() / f"{name}.json")
        except SessionFileError as error:
            yield name, "unreadable", "", "", shorten(error.problem, _NOTE, placeholder=" ...")
            continue
        note = f"KV cache of {counted(head.kv[1], 'token')}" if head.kv else ""
        yield name, _time(head.saved), str(head.count), head.model, note


def _time(saved: str) -> str:
    return saved.replace("T", " ")[:16]


def rename(chat: Conversation, old: str, new: str) -> str:
    """Give a saved session, with its KV cache, another name; a line about it. Raises SessionFileError, OptionError."""
    source, target = path_of(old), path_of(new)
    check_name(new)
    parts = document.read(source)
    kv, link = parts["keys_values"], None
    with atomic.locked(target.parent):
        if target.exists():
            raise OptionError(f"{target} exists; /sessions delete {new} makes room for it")
        try:
            if kv is not None and (file := source.with_name(kv["file"])).is_file():
                kv["file"] = f"{target.stem}.{kv['sha256'][:16]}.kv"
                os.link(file, link := target.with_name(kv["file"]))
            atomic.write(target, document.encode(parts))
            os.utime(target, ns=(_changed(source)[0],) * 2)
        except OSError as error:
            if link is not None:
                link.unlink(missing_ok=True)
            raise SessionFileError(f"could not be renamed: {error.strerror}", source, "it keeps its name") from None
    if chat.saved is not None and chat.saved.path == source.absolute():
        chat.saved = SavedAs(target.absolute(), revision_of(target) or "", chat.saved.messages)
    _remove(source)
    return f"{old} is now {new}"


def delete(chat: Conversation, name: str, force: bool = False) -> str:
    """Delete a saved session once a person agrees, or with `force`; a line about it. Raises SessionFileError, OptionError."""
    path = path_of(name)
    if revision_of(path) is None:
        raise SessionFileError("does not exist", path)
    if not force:
        chat.ui.ask(f"Delete {path}, {_described(path)}?", f"/sessions delete {name} --force deletes {path}")
    try:
        _remove(path)
    except OSError as error:
        raise SessionFileError(f"could not be deleted: {error.strerror}", path) from None
    return f"deleted {path}"


def _remove(path: Path) -> None:
    with atomic.locked(path.parent):
        path.unlink()
        for each in kv_files.files_of(path):
            each.unlink(missing_ok=True)


def check_name(name: str) -> None:
    """Raise OptionError for a name that automatic files have, which are removed after a while."""
    if AUTOMATIC.fullmatch(path_of(name).stem) and path_of(name).parent == folder():
        raise OptionError(f"{name} is a name for conversations that are kept for a limited time; choose another one")
