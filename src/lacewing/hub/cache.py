"""The per-user cache of checkpoints: one folder a model, with a manifest that tells what it holds.

Nothing outside this folder is ever written or removed, and inside it only folders whose names we make.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from lacewing.errors import DownloadError, OptionError
from lacewing.hub.names import NAMED, is_reference, is_url, key_of
from lacewing.options import Progress, did_you_mean
from lacewing.paths import cache_dir, folder_bytes, user_path

MANIFEST = "lacewing.json"
_POLL = 0.1  # seconds between two looks whether another process is done
_MOST = 1000  # files of a folder that a mistyped name is compared with
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,250}")


@dataclass(frozen=True)
class Cached:
    """A fetched model. `entry` is the file to open, or "." when the folder itself is the checkpoint."""

    name: str
    source: str
    entry: str
    files: dict[str, str]  # file name: SHA-256
    nbytes: int
    version: str = ""  # of what a URL led to: its ETag or date

    @property
    def path(self) -> Path:
        return folder_of(self.name) / self.entry


@dataclass(frozen=True)
class Partial:
    """What has been fetched of a model that is not whole yet."""

    name: str
    nbytes: int
    path: Path


def folder_of(name: str) -> Path:
    """Where a model's files stand once it is whole. Raises OptionError for what is not a model's name."""
    return _inside("models", key_of(name))


def staging_of(name: str) -> Path:
    """Where its files stand while they are being fetched; kept after a failure, so that the next try goes on from there."""
    return _inside("partial", key_of(name))


def _inside(part: str, key: str) -> Path:
    if not _KEY.fullmatch(key) or ".." in key:
        raise OptionError(f"{key!r} cannot name a model in the cache")
    return cache_dir() / part / key


def find(name: str) -> Cached | None:
    """The model if it is here and whole."""
    folder = folder_of(name)
    try:
        fields = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        cached = Cached(**fields)
        missing = [file for file in cached.files if not (folder / file).is_file()]
    except (OSError, ValueError, TypeError):
        return None
    return None if missing or cached.name != name else cached


def list_models() -> list[Cached]:
    """All that have been fetched, by name."""
    found = []
    for manifest in (cache_dir() / "models").glob(f"*/{MANIFEST}"):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, OptionError):
            cached = find(json.loads(manifest.read_text(encoding="utf-8"))["name"])
            if cached and folder_of(cached.name) == manifest.parent:
                found.append(cached)
    return sorted(found, key=lambda cached: cached.name)


def known_names() -> list[str]:
    """Of models that are here or have a short name."""
    return list(dict.fromkeys([*NAMED, *(cached.name for cached in list_models())]))


def list_partial() -> list[Partial]:
    """What is here of models whose fetching was interrupted, by name."""
    found = []
    for folder in (cache_dir() / "partial").glob("*/"):
        name = _note(folder).get("name", "")
        if nbytes := folder_bytes(folder, besides=MANIFEST):
            found.append(Partial(name if is_reference(name) and key_of(name) == folder.name else folder.name, nbytes, folder))
    return sorted(found, key=lambda partial: partial.name)


def remove(name: str) -> int:
    """Delete a fetched or partly fetched model; the bytes freed.

    Raises DownloadError when there is none, or another process is fetching it.
    """
    nameless = [partial.path for partial in list_partial() if partial.name == name and not is_reference(name)]
    if not nameless and not is_reference(name):
        hint = did_you_mean(name, [cached.name for cached in list_models()]) or "`lacewing list` shows them"
        raise OptionError(f"{name!r} is not a fetched model; {hint} (files elsewhere are yours to delete)")
    freed = 0
    for folder in nameless or (folder_of(name), staging_of(name)):
        if folder.is_dir() and not folder.is_symlink():
            with _unused(folder) if folder.parent.name == "partial" else contextlib.nullcontext():
                freed += folder_bytes(folder)
                shutil.rmtree(folder)
    if not freed:
        raise DownloadError(f"{name} is not in the cache {cache_dir()}; `lacewing list` shows what is")
    return freed


def to_fetch(name: str) -> bool:
    """Whether a person names a model of the hub or a URL that is not here; a path that exists wins. Raises OptionError."""
    return is_reference(name) and _existing(name) is None and find(name) is None


def _existing(name: str | Path) -> Path | None:
    """The path, if it exists. A URL is none: parts of it may be longer than a file's name."""
    path = None if isinstance(name, str) and is_url(name) else user_path(name)
    return path if path is not None and path.exists() else None


@contextlib.contextmanager
def _unused(staging: Path) -> Iterator[None]:
    """Raises DownloadError while another process fetches into this folder."""

    def refuse(what: str, done: int, total: int) -> None:
        if not done:
            raise DownloadError(f"another process is fetching into {staging}; end it first")

    with _locked(staging, "", refuse):
        yield


def resolve(name: str | Path) -> Path:
    """The path to open for a path or a fetched model's name; a path that exists wins. Raises DownloadError for neither."""
    if not isinstance(name, (str, Path)) or not str(name):
        raise OptionError(f"a model is named by a path or a name, not by {name!r}")
    path = _existing(name)
    if path is not None:
        return path
    if isinstance(name, Path):
        raise DownloadError(f"there is no file or directory {name}")
    if is_reference(name):
        cached = find(name)
        if cached is None:
            raise DownloadError(f"{name} has not been fetched yet; run: lacewing pull {name}")
        return cached.path
    hint = _meant(name) or f"known names are {', '.join(NAMED)}"
    raise DownloadError(f"there is no file, directory or model {name!r}; {hint}")


def _meant(name: str) -> str:
    """The model or the file beside it that a person may have meant."""
    folder, _, last = name.rpartition("/")
    names = [] if folder else known_names()
    with contextlib.suppress(OSError, OptionError):
        files = sorted(path.name for path in islice(user_path(folder or ".").iterdir(), _MOST))
        names += [file for file in files if file.endswith((".gguf", ".safetensors")) or "." not in file]
    hint = did_you_mean(last, names)
    return hint.replace("did you mean ", f"did you mean {folder}/") if hint and folder else hint


def stage(name: str, version: str = "") -> Path:
    """The staging folder, made if it is not there, with a note of whose it is; emptied if it has files of another version."""
    staging = staging_of(name)
    if version and staging.is_dir() and _note(staging).get("version") != version:
        shutil.rmtree(staging)
    staging.mkdir(parents=True, exist_ok=True)
    (staging / MANIFEST).write_text(json.dumps({"name": name, "version": version}), encoding="utf-8")
    return staging


def _note(staging: Path) -> dict[str, str]:
    """Name and version of what is being fetched into a folder; empty where nothing tells."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((staging / MANIFEST).read_text(encoding="utf-8"))
        if isinstance(found, dict) and all(isinstance(found.get(key), str) for key in ("name", "version")):
            return found
    return {}


def commit(name: str, source: str, files: dict[str, str], version: str = "") -> Cached:
    """Turn the staging folder into the model's folder, in one rename. `files`: names in it with their SHA-256."""
    staging, folder = staging_of(name), folder_of(name)
    names = sorted(files)
    single = [file for file in names if file.endswith(".gguf")]
    for path in staging.iterdir():  # what another source left behind
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in files:
            path.unlink()
    nbytes = sum((staging / file).stat().st_size for file in names)
    cached = Cached(name, source, single[0] if single else ".", files, nbytes, version)
    (staging / MANIFEST).write_text(json.dumps(asdict(cached), indent=1), encoding="utf-8")
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.is_dir():
        shutil.rmtree(folder)
    os.replace(staging, folder)
    return cached


@contextlib.contextmanager
def locked(name: str, progress: Progress | None = None) -> Iterator[None]:
    """Only one process at a time fetches a model; others wait, and tell `progress`, which may raise to give up.

    Raises DownloadError where the cache cannot be written or locked.
    """
    models = folder_of(name).parent
    if os.path.lexists(models):  # a link that leads nowhere is told now, rather than when all is here
        _make_folder(models)
    with _locked(staging_of(name), name, progress):
        yield


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"cannot write to the cache {folder}: {error.strerror}") from error


@contextlib.contextmanager
def _locked(staging: Path, name: str, progress: Progress | None) -> Iterator[None]:
    path = staging.with_name(f"{staging.name}.lock")
    _make_folder(path.parent)
    try:
        file = open(path, "wb")  # noqa: SIM115
    except OSError as error:
        raise DownloadError(f"cannot write to the cache {path.parent}: {error.strerror}") from error
    with file:
        try:
            import fcntl
        except ImportError:  # Windows: the checksum still catches two writers
            yield
            return
        what, report = f"waiting for another process that fetches {name}", progress or (lambda *_: None)
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                report(what, 1, 1)
                break
            except BlockingIOError:
                report(what, 0, 1)
                time.sleep(_POLL)
            except OSError as error:
                raise DownloadError(f"cannot lock {path}: {error}; LACEWING_CACHE can name a folder on another disk") from error
        yield
