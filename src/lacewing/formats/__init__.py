"""Checkpoint files: GGUF and safetensors, to metadata and checked byte ranges. Knows no device and no model.

`open_checkpoint` reads headers only. `formats.read` gives the bytes of a range.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lacewing.errors import ModelFormatError
from lacewing.formats import safetensors
from lacewing.formats.checkpoint import ByteRange, Checkpoint, TensorInfo
from lacewing.formats.files import START, open_regular, refuse_foreign, visible
from lacewing.formats.gguf import open_gguf
from lacewing.formats.json_files import FolderMetadata
from lacewing.formats.read import identity

__all__ = ["ByteRange", "Checkpoint", "TensorInfo", "open_checkpoint", "open_texts"]

_TOKENIZER = "tokenizer.json"


def open_checkpoint(path: str | Path, *, whole: bool = True) -> Checkpoint:
    """Open a GGUF file (any part of a split one), a .safetensors file, or a folder that holds one or the other.

    Headers only. `whole` False: files may end anywhere behind their headers, as while they are being fetched; such a checkpoint
    can be described, not run. Raises ModelFormatError for what is damaged, hostile or of a format that is not read.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _identified(_open_folder(path, whole))
    except OSError as error:
        raise ModelFormatError(path, f"cannot be opened: {error.strerror}") from None
    file, size = open_regular(path)
    with file:
        start = file.read(START)
    refuse_foreign(path, start)
    if size == 0:
        raise ModelFormatError(path, "is empty")
    if start.startswith(b"GGUF") or path.suffix.lower() == ".gguf":
        return _identified(open_gguf(path, whole))
    if path.suffix.lower() == ".safetensors" or start[8:9] == b"{":
        return _identified(safetensors.open_file(path, whole))
    raise ModelFormatError(path, "is neither a GGUF nor a safetensors file", offset=0)


def _identified(checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, identities={path: identity(path) for path in checkpoint.files})


def open_texts(path: str | Path) -> Checkpoint:
    """As `open_checkpoint` for those who want no weights: of a folder with tokenizer.json, or of that file, just the JSON files."""
    path = Path(path)
    try:
        if path.name == _TOKENIZER and path.is_file():
            path = path.parent
        suffixes = {Path(name).suffix for name in visible(path)} if (path / _TOKENIZER).is_file() else {".gguf"}
        if ".safetensors" in suffixes or ".gguf" not in suffixes:
            return Checkpoint(path, "safetensors", FolderMetadata(path), {})
        return open_checkpoint(path)
    except OSError as error:
        raise ModelFormatError(path, f"cannot be read: {error.strerror or error}") from None


def _open_folder(folder: Path, whole: bool) -> Checkpoint:
    names = visible(folder)
    ggufs = [name for name in names if name.lower().endswith(".gguf")]
    if not ggufs or any(name.endswith(".safetensors") for name in names):
        return safetensors.open_folder(folder, whole)
    checkpoint = open_checkpoint(folder / ggufs[0], whole=whole)
    others = set(ggufs) - {part.name for part in checkpoint.files}
    if others:
        raise ModelFormatError(folder, f"holds several GGUF models; name one of {', '.join(ggufs[:5])}")
    return checkpoint
