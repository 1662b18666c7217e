"""Opening files that may be hostile: only regular files, no pickles, no way out of the checkpoint's folder."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lacewing.errors import LacewingError, ModelFormatError, OptionError
from lacewing.paths import user_path

PICKLE_SUFFIXES = frozenset((".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz"))
START = 24  # bytes that tell what a file is
_PART = re.compile(r"-\d{5}-of-\d{5}$")
_CONVERT = "convert it to safetensors or GGUF, or fetch a version of the model in one of these"
_MAGICS = (
    (b"PK\x03\x04", f"a zip archive, as PyTorch writes; it can run code when opened; {_CONVERT}"),
    (b"7z\xbc\xaf\x27\x1c", f"a 7z archive; {_CONVERT}"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"lmgg", f"an old ggml file; {_CONVERT}"),
    (b"fmgg", f"an old ggml file; {_CONVERT}"),
    (b"tjgg", f"an old ggml file; {_CONVERT}"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; run `git lfs pull` or download the file"),
    (b"<!DOCTYPE", "a web page, not a model; the download went wrong"),
    (b"<html", "a web page, not a model; the download went wrong"),
)


def shown(name: str) -> str:
    """A name from a file, short enough and safe for a message."""
    return name if len(name) <= 100 and name.isprintable() else ascii(name[:100])[1:-1] + ("..." if len(name) > 100 else "")


def visible(folder: Path) -> list[str]:
    """The names in a folder, sorted, without hidden ones such as `._model.gguf`, which macOS leaves on other systems' disks."""
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))


def open_regular(path: Path) -> tuple[BinaryIO, int]:
    """Open for reading; gives the file and its size. A FIFO, device or directory is refused before it can block."""
    try:
        facts = os.stat(path)
        if stat.S_ISREG(facts.st_mode):
            file = open(path, "rb", opener=_at_once)  # noqa: SIM115
            facts = os.fstat(file.fileno())
            if stat.S_ISREG(facts.st_mode):
                return file, facts.st_size
            file.close()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise ModelFormatError(path, f"cannot be opened: {reason or 'the path is not valid'}") from None
    raise ModelFormatError(path, "is not a regular file")


def _at_once(path: str, flags: int) -> int:
    """A FIFO that took the file's place meanwhile is not waited for."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_bounded(path: Path, limit: int, *, whole: bool = True) -> bytes:
    """The bytes of a regular file; `whole` False: at most `limit` of them. Raises ModelFormatError, also if there are more."""
    file, size = open_regular(path)
    try:
        with file:
            data = file.read(limit + whole)
    except OSError as failed:  # a disk that fails
        raise ModelFormatError(path, f"cannot be read: {failed.strerror or failed}") from None
    if len(data) > limit:
        raise ModelFormatError(path, f"has {max(size, len(data))} bytes; at most {limit} are read")
    return data


def read_named(name: str | Path, limit: int, error: Callable[[str], LacewingError] = OptionError, *, whole: bool = True) -> bytes:
    """The bytes of a file that a person named; every such file is read through here. `~` is expanded.

    `whole` False: at most `limit` bytes of it. Raises `error` for what is no regular file, cannot be read, or has more bytes.
    """
    try:
        path = user_path(name)
        if not path.exists():
            raise error(f"there is no file {shown(str(name))}")
        return read_bounded(path, limit, whole=whole)
    except ModelFormatError as failed:
        raise error(f"{shown(str(name))} {failed.problem}") from None
    except OptionError as failed:
        raise error(str(failed)) from None


def refuse_foreign(path: Path, start: bytes) -> None:
    """Raise ModelFormatError with a hint if a file's name or first bytes say that it is no format of ours."""
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise ModelFormatError(path, f"{path.suffix} files can run code when opened and are never read; {_CONVERT}")
    if len(start) > 8 and start[8:].lstrip(b" \t\r\n")[:1] in (b"{", b""):  # safetensors: its length may look like anything
        return
    for magic, what in _MAGICS:
        if start.startswith(magic):
            raise ModelFormatError(path, f"is {what}", offset=0)
    if len(start) > 1 and start[0] == 0x80 and start[1] <= 5:
        raise ModelFormatError(path, f"is a pickle, which can run code when opened; {_CONVERT}", offset=0)


@dataclass(frozen=True)
class Links:
    """Where links of a checkpoint may lead: a file may be anywhere if a person named it, and what comes with it beside it.

    `anywhere`: the person lets all links be followed.
    """

    folders: tuple[Path, ...] = ()  # resolved
    anywhere: bool = False

    @classmethod
    def of(cls, named: Path, anywhere: bool = False) -> Links:
        """For a file or folder that a person named. A Hugging Face cache keeps files in `blobs` and links to them."""
        folders = {named.resolve(), *([] if named.is_dir() else [named.parent.resolve(), named.resolve().parent])}
        caches = {above.parent / "blobs" for folder in folders for above in folder.parents if above.name == "snapshots"}
        return cls((*folders, *caches), anywhere)

    def check(self, path: Path) -> None:
        """Raise ModelFormatError if `path`, links followed, is in none of the folders."""
        if not self.anywhere and not any(path.resolve().is_relative_to(folder) for folder in self.folders):
            problem = "is a link that leaves its folder; copy the file here, name the real one, or pass `follow_links`"
            raise ModelFormatError(path, f"{problem} (follow_links=True)")


def model_folder(folder: Path) -> Path:
    """Of `models--owner--name` in a Hugging Face cache, the snapshot of its main branch, or the newest; another folder itself."""
    snapshots = folder / "snapshots"
    if not snapshots.is_dir() or not (folder.name.startswith("models--") or (folder / "blobs").is_dir()):
        return folder
    found = [snapshots / name for name in visible(snapshots) if (snapshots / name).is_dir()]
    main = folder / "refs" / "main"
    revision = read_bounded(main, 100, whole=False).decode(errors="replace").strip() if main.is_file() else ""
    found.sort(key=lambda each: (each.name == revision, each.stat().st_mtime_ns), reverse=True)
    return next((each for each in found if holds_model(each)), found[0] if found else folder)


def holds_model(folder: Path) -> bool:
    """Whether a folder has files of weights."""
    return any(name.lower().endswith((".gguf", ".safetensors")) for name in visible(folder))


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints in a folder, by name: GGUF files, of a split one the first part, then folders. [] for no folder."""
    try:
        entries = [folder / name for name in visible(folder)]
    except OSError:
        return []
    later = [entry for entry in entries if "-of-" in entry.name and "-00001-of-" not in entry.name]
    files = [entry for entry in entries if entry.suffix == ".gguf" and os.path.isfile(entry) and entry not in later]
    return files + [entry for entry in entries if os.path.isfile(entry / "config.json")]


def stem_of(path: Path) -> str:
    """What a checkpoint is called without a name of its own: its file, or its folder; of a split file without the part."""
    return _PART.sub("", path.stem if path.suffix in (".gguf", ".safetensors") else path.name)
