"""Opening files that may be hostile: only regular files, no pickles, no way out of the checkpoint's folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from lacewing.errors import ModelFormatError

PICKLE_SUFFIXES = frozenset((".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz"))
START = 24  # bytes that tell what a file is
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


def open_regular(path: Path) -> tuple[BinaryIO, int]:
    """Open for reading; gives the file and its size. A FIFO, device or directory is refused before it can block."""
    try:
        kind = os.stat(path)
        if not stat.S_ISREG(kind.st_mode):
            raise ModelFormatError(path, "is not a regular file")
        file = open(path, "rb")  # noqa: SIM115
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise ModelFormatError(path, f"cannot be opened: {reason or 'the path is not valid'}") from None
    return file, os.fstat(file.fileno()).st_size


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


def check_inside(path: Path, *folders: Path) -> None:
    """Raise ModelFormatError if `path`, links followed, is in none of the folders.

    A Hugging Face cache keeps its files in `blobs` beside `snapshots` and links to them; that is let through.
    """
    allowed = [folder.resolve() for folder in folders]
    allowed += [folder.parent.parent / "blobs" for folder in allowed if folder.parent.name == "snapshots"]
    if path.resolve().parent not in allowed:
        raise ModelFormatError(path, "is a link that leaves its folder; copy the file here, or name the real folder")
