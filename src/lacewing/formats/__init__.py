"""Checkpoint files: GGUF and safetensors, to metadata and checked byte ranges. Knows no device and no model.

`open_checkpoint` reads headers only. `formats.read` gives the bytes of a range.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lacewing.errors import ModelFormatError
from lacewing.formats import safetensors
from lacewing.formats.checkpoint import ByteRange, Checkpoint, TensorInfo
from lacewing.formats.files import START, Links, model_folder, open_regular, refuse_foreign, shown, visible
from lacewing.formats.gguf import open_gguf, split_head
from lacewing.formats.json_files import FolderMetadata
from lacewing.formats.read import identity

__all__ = ["ByteRange", "Checkpoint", "TensorInfo", "open_checkpoint", "open_texts"]

_TOKENIZERS = ("tokenizer.json", "tiktoken.model")
_LISTED = 20  # models of a folder that a message names


def open_checkpoint(path: str | Path, *, whole: bool = True, follow_links: bool = False) -> Checkpoint:
    """Open a GGUF file (any part of a split one), a .safetensors file, or a folder that holds one or the other.

    Headers only. `whole` False: files may end anywhere behind their headers, as while they are being fetched; such a checkpoint
    can be described, not run. `follow_links`: also links that leave the folder. Of `models--owner--name` in a Hugging Face cache
    a snapshot is opened. Raises ModelFormatError for what is damaged, hostile or of a format that is not read.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _identified(_open_folder(model_folder(path), whole, follow_links))
    except OSError as error:
        raise ModelFormatError(path, f"cannot be opened: {error.strerror}") from None
    file, size = open_regular(path)
    with file:
        start = file.read(START)
    refuse_foreign(path, start)
    if size == 0:
        raise ModelFormatError(path, "is empty")
    links = Links.of(path, follow_links)
    if start.startswith(b"GGUF") or path.suffix.lower() == ".gguf":
        return _identified(open_gguf(path, links, whole))
    if path.suffix.lower() == ".safetensors" or start[8:9] == b"{":
        return _identified(safetensors.open_file(path, links, whole))
    raise ModelFormatError(path, "is neither a GGUF nor a safetensors file", offset=0)


def _identified(checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, identities={path: identity(path) for path in checkpoint.files})


def open_texts(path: str | Path, *, follow_links: bool = False) -> Checkpoint:
    """As `open_checkpoint` for those who want no weights: of a folder with a tokenizer, or of its file, just the JSON files."""
    path = Path(path)
    try:
        if path.name in _TOKENIZERS and path.is_file():
            path = path.parent
        path = model_folder(path)
        told = any((path / name).is_file() for name in _TOKENIZERS)
        suffixes = {Path(name).suffix for name in visible(path)} if told else {".gguf"}
        if ".safetensors" in suffixes or ".gguf" not in suffixes:
            links = Links.of(path, follow_links)
            return Checkpoint(path, "safetensors", FolderMetadata(path, links), {}, links=links)
        return open_checkpoint(path, follow_links=follow_links)
    except OSError as error:
        raise ModelFormatError(path, f"cannot be read: {error.strerror or error}") from None


def _open_folder(folder: Path, whole: bool, follow_links: bool) -> Checkpoint:
    names = visible(folder)
    ggufs = [name for name in names if name.lower().endswith(".gguf")]
    if not ggufs or any(name.endswith(".safetensors") for name in names):
        return safetensors.open_folder(folder, Links.of(folder, follow_links), whole)
    ggufs = [name for name in ggufs if "mmproj" not in name.lower()] or ggufs  # the vision part of a model, in a file of its own
    models = sorted({split_head(name) for name in ggufs})
    if len(models) > 1:
        more = f" and {len(models) - _LISTED} more" if len(models) > _LISTED else ""
        raise ModelFormatError(
            folder, f"holds {len(models)} GGUF models; name one of {', '.join(map(shown, models[:_LISTED]))}{more}"
        )
    return open_checkpoint(folder / ggufs[0], whole=whole, follow_links=follow_links)
