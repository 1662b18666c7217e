"""Files that are either the old or the new one, whole, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import time
from pathlib import Path

_STALE = 60.0  # seconds after which a temporary file counts as left behind by a process that died


def write(path: Path, data: bytes | memoryview) -> None:
    """Write beside, to the disk, then rename over; of a link, what it leads to. Raises OSError; the old file is then still there.

    A device, a pipe or a folder is no file to replace.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "it exists and is not a regular file")
    remove_stale(path)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise
    sync_folder(path.parent)


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
    for left in path.parent.glob(f".{_escaped(path.name.partition('.')[0])}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE:
                left.unlink()


def _escaped(name: str) -> str:
    """For a pattern."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)
