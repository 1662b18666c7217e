"""Paths that a person names, and the folders of a user that are ours."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from lacewing.errors import OptionError

_SHOWN = 80  # characters of a path in an error about its form


def cache_dir() -> Path:
    """LACEWING_CACHE, or `lacewing` where this system keeps a user's caches. Not made here."""
    own = os.environ.get("LACEWING_CACHE")
    if own:
        return user_path(own, "LACEWING_CACHE: ").absolute()
    return user_folder("cache")


def user_folder(kind: str) -> Path:
    """Ours among a user's folders for "cache", "data", "state" or "config". Not made here. Raises OptionError without a home."""
    import platformdirs

    try:
        return Path(getattr(platformdirs, f"user_{kind}_dir")("lacewing", appauthor=False))
    except RuntimeError:
        raise OptionError("this user has no home folder; set HOME, or LACEWING_CACHE and LACEWING_SESSIONS") from None


def user_path(name: str | Path, what: str = "") -> Path:
    """The path that a person names, `~` being their home folder; it need not exist. `what` stands in front of an error.

    Raises OptionError for what no file can be called, and for what this system does not let be looked at.
    """
    try:
        path = Path(name) if os.path.lexists(name) else Path(name).expanduser()  # a file may be called ~draft.gguf
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
        return path
    except OSError as error:  # too long, links in a circle, a folder that may not be entered
        reason = error.strerror or str(error)
    except RuntimeError:  # ~nobody
        reason = "its home folder is not known"
    except ValueError:  # a null character, or half of one
        reason = "it has a character that no path has"
    shown = str(name)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
    raise OptionError(f"{what}{shown!r} cannot be used as a path: {reason}")


def folder_bytes(folder: Path, besides: str = "") -> int:
    """Of the files in a folder, but for those of one name; another process may put files there and take them away meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                facts = os.lstat(os.path.join(place, name))
                total += facts.st_size if name != besides and stat.S_ISREG(facts.st_mode) else 0
    return total
