"""Proposed edits against the files of a working directory: checked whole, then written all or none.

A path may come from a model, so it must stay inside the directory, also through symbolic links, and out of `.git`.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lacewing.chat.services import atomic
from lacewing.chat.services.edits import DiffLine, Edit, EditError, diff, replace_once
from lacewing.formats.files import read_named

MAX_FILE_BYTES = 4 * 2**20  # of a file that is edited
_FORBIDDEN = (".git", ".hg", ".svn")  # their hooks and settings run programs


@dataclass(frozen=True)
class Change:
    """What one file becomes. `before` is None for a file that is not there yet."""

    root: Path
    name: str
    before: bytes | None
    after: bytes

    def diff(self) -> list[DiffLine]:
        return diff(self.name, None if self.before is None else _shown(self.before), _shown(self.after))


def plan_changes(edits: Sequence[Edit], root: Path) -> list[Change]:
    """The change of each file that the edits name, in their order. Nothing is written. Raises EditError."""
    by_name: dict[str, list[Edit]] = {}
    for edit in edits:
        name = locate(root, edit.path).relative_to(root.resolve()).as_posix()
        by_name.setdefault(name, []).append(edit)
    return [_plan_file(root, name, file_edits) for name, file_edits in by_name.items()]


def _plan_file(root: Path, name: str, edits: Sequence[Edit]) -> Change:
    before = _read(root, name)
    text = "" if before is None else _text(name, before)
    if before is None and any(line.strip() for line in edits[0].search):
        raise EditError(f"{name}: there is no such file; only a block with an empty SEARCH makes one")
    marked, crlf = text.startswith("\ufeff"), "\r\n" in text and text.count("\n") == text.count("\r\n")
    text = text.removeprefix("\ufeff")
    text = text.replace("\r\n", "\n") if crlf else text
    for edit in edits:
        text = replace_once(text, edit)
    text = text.replace("\n", "\r\n") if crlf else text
    return Change(root, name, before, (("\ufeff" if marked else "") + text).encode())


def locate(root: Path, path: str) -> Path:
    """The file that a proposed path means, links followed. Raises EditError unless it is a file, or may be made, inside `root`."""
    if not path or len(path) > 1000 or any(ord(character) < 32 or ord(character) == 127 for character in path):
        raise EditError(f"{path[:80]!r} is not a path")
    base = root.resolve()
    try:
        target = (base / path.replace("\\", "/")).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise EditError(f"{path}: {error}") from None
    if target == base or not target.is_relative_to(base):
        raise EditError(f"{path} is outside the working directory {base}")
    if any(part.lower() in _FORBIDDEN for part in target.relative_to(base).parts):
        raise EditError(f"{path} belongs to the version control system; it is not edited")
    if target.exists() and not target.is_file():
        raise EditError(f"{path} is not a regular file")
    return target


def _read(root: Path, name: str) -> bytes | None:
    target = locate(root, name)
    return read_named(target, MAX_FILE_BYTES, EditError) if target.exists() else None


def _text(name: str, content: bytes) -> str:
    try:
        if b"\0" in content:
            raise UnicodeError
        return content.decode()
    except UnicodeError:
        raise EditError(f"{name} is not a text file") from None


def _shown(content: bytes) -> str:
    return content.decode(errors="replace").removeprefix("\ufeff").replace("\r\n", "\n")


def apply_changes(changes: Sequence[Change]) -> None:
    """Write all changes, or none. Raises EditError if a file has changed since the change was planned."""
    staged: list[tuple[Change, Path, Path]] = []
    written: list[tuple[Change, Path]] = []
    try:
        for change in changes:
            if _read(change.root, change.name) != change.before:
                raise EditError(f"{change.name} has changed since the edit was proposed")
            target = locate(change.root, change.name)
            staged.append((change, target, _stage(target, change.after)))
        for change, target, copy in staged:
            if locate(change.root, change.name) != target:
                raise EditError(f"{change.name} has moved")
            os.replace(copy, target)
            written.append((change, target))
    except (OSError, EditError) as error:
        for change, target in reversed(written):
            _restore(change, target)
        raise error if isinstance(error, EditError) else EditError(f"nothing was changed: {error}") from None
    finally:
        for _, _, copy in staged:
            copy.unlink(missing_ok=True)


def _stage(target: Path, content: bytes) -> Path:
    """The new content in a file beside the old one, with its permissions, safe on the disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    copy = atomic.stage(target, content)
    try:
        copy.chmod(stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666 & ~_umask())
    except BaseException:
        copy.unlink(missing_ok=True)
        raise
    return copy


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _restore(change: Change, target: Path) -> None:
    with contextlib.suppress(OSError):
        if change.before is None:
            target.unlink()
        else:
            os.replace(_stage(target, change.before), target)
