"""The KV cache of a saved session: a file beside its JSON, under a name of its own content, for one model on one device."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path
from typing import Any

from lacewing.chat.services import atomic, document
from lacewing.chat.services.document import SessionFileError
from lacewing.chat.session.session import Session
from lacewing.errors import OptionError
from lacewing.options import counted, format_bytes

_FILE = re.compile(r"(.+)\.[0-9a-f]{16}\.kv")
_PARTIAL = re.compile(rf"\.(.+\.(json|kv)|.{{{atomic.NAMED}}})\.(\d+-)?[a-z0-9_]{{8}}\.tmp")


def write(chat: Session, path: Path, lines: list[str]) -> tuple[dict[str, Any] | None, Path | None]:
    """What the JSON at `path` says of the cache, and its file if that is new. Raises OSError.

    The name is of its own content, so that an older JSON keeps its own until it is replaced.
    """
    ids, data = chat.model.read_state()
    if not ids:
        lines.append("without the KV cache: it is empty")
        return None, None
    digest = hashlib.sha256(data).hexdigest()
    file = path.with_name(f"{path.stem}.{digest[:16]}.kv")
    is_new = not file.exists()
    atomic.write(file, data)
    lines.append(f"with the KV cache of {counted(len(ids), 'token')}, {format_bytes(len(data))}")
    return {
        "file": file.name,
        "nbytes": len(data),
        "sha256": digest,
        "ids": ids,
        "device": _device_of(chat),
    }, file if is_new else None


def _device_of(chat: Session) -> str:
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
    return facts["device"] in (_device_of(chat), f"{_hardware_of(chat)} {itemsize}")


def read(chat: Session, path: Path, facts: dict[str, Any]) -> str:
    """Load the KV cache, if it is whole and of this device; a line that says whether it was."""
    from lacewing.engine.saved import VERSIONS, state_size

    engine, ids, again = chat.model.engine, facts["ids"], "the conversation will be reprocessed"
    if not _may_use(chat, facts):
        return f"its KV cache is of another device: {again}"
    if len(ids) > engine.context or not all(type(each) is int and 0 <= each < engine.vocab_size for each in ids):
        return f"its KV cache of {counted(len(ids), 'token')} does not fit this context: {again}"
    expected = [state_size(chat.model.step.groups, len(ids), version) for version in VERSIONS]
    try:
        if os.path.basename(facts["file"]) != facts["file"]:
            return f"its KV cache is not used (its file is in another folder): {again}"
        size = facts["nbytes"] if facts["nbytes"] in expected else 0
        data, _ = document.read_bytes(path.with_name(facts["file"]), size)
    except SessionFileError as error:
        return f"its KV cache {error.problem}: {again}"
    except ValueError:  # with a NUL, or half a character
        return f"its KV cache has an invalid file name: {again}"
    if len(data) not in expected or hashlib.sha256(data).hexdigest() != facts["sha256"]:
        return f"its KV cache is damaged: {again}"
    try:
        chat.model.write_state(ids, data)
    except OptionError as error:
        return f"its KV cache is not used ({error}): {again}"
    return f"the KV cache of {counted(len(ids), 'token')} is loaded: nothing has to be reprocessed"


def files_of(path: Path) -> list[Path]:
    """KV caches that a session's JSON has or had."""
    found = [(other, _FILE.fullmatch(other.name)) for other in path.parent.iterdir()]
    return [other for other, match in found if match and match[1] == path.stem]


def remove_others(path: Path, kept: str | None, replaced: str | None) -> None:
    """Remove the KV caches beside a JSON but for the one that it has. `replaced`: the one that it had.

    A young one may belong to another chat, which writes its JSON in a moment.
    """
    for other in files_of(path):
        if other.name != kept and (other.name == replaced or atomic.is_stale(other)):
            other.unlink(missing_ok=True)


def remove_left_over(folder: Path) -> None:
    """Remove what saves that failed have left in the folder of sessions: KV caches without a JSON, and half-written files."""
    for left in folder.iterdir():
        match = _FILE.fullmatch(left.name)
        with contextlib.suppress(OSError, SessionFileError):  # a damaged JSON keeps its KV cache
            if match and atomic.is_stale(left):
                path = left.with_name(f"{match[1]}.json")
                kv = document.read_head(path).kv if path.exists() else None
                if kv is None or kv[0] != left.name:
                    left.unlink()
            elif _PARTIAL.fullmatch(left.name) and atomic.is_stale(left):
                left.unlink()
