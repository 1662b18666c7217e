"""Files that are either the old or the new one, whole, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lacewing.weights.machine import is_running

_YOUNG = 60.0  # seconds in which a file that nothing names yet may still be of a save that is going on
_PATIENCE = 5.0  # seconds to wait for another process that saves
NAMED = 60  # characters of a file's name that its temporary files begin with
_WRITER = re.compile(r"\..+\.(\d+)-[^.]*\.tmp")


def write(path: Path, data: bytes | memoryview) -> None:
    """Write beside, to the disk, then rename over; of a link, what it leads to. Raises OSError; the old file is then still there.

    A device, a pipe or a folder is no file to replace.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "it exists and is not a regular file")
    remove_stale(path)
    partial = stage(path, data)
    try:
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def stage(path: Path, data: bytes | memoryview) -> Path:
    """A new file beside `path`, on the disk, that only this person can read. Raises OSError; nothing is then left."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:NAMED]}.{os.getpid()}-", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    return Path(name)


def sync_folder(folder: Path) -> None:
    """Make a rename last."""
    if os.name == "nt":
        return  # there, folders cannot be opened
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_stale(path: Path) -> None:
    """Delete temporary files of this file, and of those beside it, whose writers were killed."""
    for left in path.parent.glob(f".{_escaped(path.name.partition('.')[0][:NAMED])}.*.tmp"):
        with contextlib.suppress(OSError):
            if is_stale(left):
                left.unlink()


def is_stale(path: Path) -> bool:
    """Whether a file that nothing names was left behind. One that is dated ahead was written before the clock was set right."""
    writer = _WRITER.fullmatch(path.name)
    if writer and int(writer[1]) != os.getpid() and is_running(int(writer[1])):
        return False  # it may have been suspended
    return abs(time.time() - path.lstat().st_mtime) > _YOUNG


def _escaped(name: str) -> str:
    """For a pattern."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one process at a time saves in a folder; where folders cannot be locked, or somebody takes long, others save as well."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:
                break
        yield
    finally:
        os.close(handle)
