"""GGUF files: a header of typed keys and tensor infos, then the tensors; possibly split over several files.

Only headers are read. What comes back has been checked: each tensor's type, shape, alignment and extent, and that no two
tensors share bytes. Metadata: numbers, booleans and text as Python values, numeric arrays as NumPy arrays, text arrays as lists.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from lacewing.errors import ModelFormatError, UnsupportedModelError
from lacewing.formats.checkpoint import ByteRange, Checkpoint, TensorInfo
from lacewing.formats.files import Links, open_regular, shown
from lacewing.formats.gguf_header import UINT32, Header, HeaderReader, RawTensor
from lacewing.options import counted
from lacewing.quants import by_ggml_id

ALIGNMENT = 32  # bytes, unless the file says otherwise
ALIGNMENT_LIMIT = 2**16
ELEMENT_LIMIT = 2**48
_SPLIT_NAME = re.compile(r"(.*)-(\d{5})-of-(?!00000)(\d{5})\.gguf", re.DOTALL)


def open_gguf(path: Path, links: Links, whole: bool = True) -> Checkpoint:
    """Open a GGUF file, with all parts of it if it is split; `whole` as for `open_checkpoint`. Raises ModelFormatError."""
    opened = metadata, tensors, _ = _open_file(path, whole)
    count = _split_number(path, metadata, "split.count", 1)
    if count <= 1:
        return Checkpoint(path, "gguf", metadata, tensors, (path,), links, whole)
    return _open_split(_beside_parts(path), opened, count, links, whole)


def split_names(name: str) -> list[str]:
    """The names of all parts of the split file that has a part of this name; of another file just its own."""
    found = _SPLIT_NAME.fullmatch(name)
    return [name] if found is None else [f"{found[1]}-{part + 1:05}-of-{found[3]}.gguf" for part in range(int(found[3]))]


def split_head(name: str) -> str:
    """The name of the first part, likewise."""
    found = _SPLIT_NAME.fullmatch(name)
    return name if found is None else f"{found[1]}-00001-of-{found[3]}.gguf"


def _beside_parts(path: Path) -> Path:
    """Of a link to a part, the part itself if the others are there rather than here."""
    real = path.resolve()
    names = split_names(real.name) if _SPLIT_NAME.fullmatch(real.name) else []
    here = names and all(path.with_name(name).exists() for name in names)
    return real if names and not here and all(real.with_name(name).exists() for name in names) else path


_Opened = tuple[dict[str, Any], dict[str, TensorInfo], int]  # metadata and tensors of one file, and where they end


def _open_split(path: Path, opened: _Opened, count: int, links: Links, whole: bool) -> Checkpoint:
    """Open all parts of the split file that `path` is one of, which is `opened`; the metadata are those of the first part."""
    name = _SPLIT_NAME.fullmatch(path.name)
    parts = tuple(path.with_name(part) for part in split_names(path.name))
    missing = [part.name for part in parts if not part.exists()]
    if (name is None or int(name[3]) != count or missing) and _joined(path, opened[2]):
        problem = f"is {counted(count, 'part')} of a split model one after the other, as `cat` joins them; that is no GGUF file"
        raise ModelFormatError(path, f"{problem}. Join the parts with `llama-gguf-split --merge`, or keep them apart")
    if name is None or int(name[3]) != count:
        number = _split_number(path, opened[0], "split.no", 0) + 1
        problem = f"is part {number} of {count}: its name must end with -{number:05}-of-{count:05}.gguf, and the other parts"
        raise ModelFormatError(path, f"{problem} must lie beside it", field="split.count")
    if missing:
        raise ModelFormatError(path, f"is one of {counted(count, 'part')}; {len(missing)} missing: {', '.join(missing[:3])}")
    first: dict[str, Any] = {}
    tensors: dict[str, TensorInfo] = {}
    for index, part in enumerate(parts):
        links.check(part)
        metadata, found, _ = opened if part == path else _open_file(part, whole)
        first = first or metadata
        for key, expected in (("split.count", count), ("split.no", index)):
            if _split_number(part, metadata, key, None) != expected:
                raise ModelFormatError(part, f"is {metadata[key]}, but by the file's name it must be {expected}", field=key)
        twice = found.keys() & tensors.keys()
        if twice:
            raise ModelFormatError(part, "the tensor is in another part too", field=min(twice))
        tensors.update(found)
    total = _split_number(parts[0], first, "split.tensors.count", len(tensors))
    if total != len(tensors):
        raise ModelFormatError(parts[0], f"is {total}, but the parts have {len(tensors)} tensors", field="split.tensors.count")
    return Checkpoint(parts[0], "gguf", first, tensors, parts, links, whole)


def _joined(path: Path, end: int) -> bool:
    """Whether another GGUF file begins where this one should end."""
    file, _ = open_regular(path)
    with file:
        file.seek(end)
        return file.read(2 * ALIGNMENT).lstrip(b"\0").startswith(b"GGUF")


def _split_number(path: Path, metadata: dict[str, Any], key: str, default: int | None) -> int:
    value = metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 100_000_000:
        raise ModelFormatError(path, f"must be a count, not {shown(str(value))}", field=key)
    return value


def _open_file(path: Path, whole: bool) -> _Opened:
    file, size = open_regular(path)
    with file:
        header = HeaderReader(file, size, path).read()
    alignment = _alignment(path, header)
    start = -(-header.end // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for raw in header.tensors:
        if raw.name in tensors:
            raise ModelFormatError(path, "the tensor occurs twice", field=raw.name, offset=raw.at)
        tensors[raw.name] = _tensor(path, raw, start, size if whole else None, alignment)
    check_overlap(path, tensors)
    end = max((part.offset + part.nbytes for tensor in tensors.values() for part in tensor.ranges), default=header.end)
    return header.metadata, tensors, end


def _alignment(path: Path, header: Header) -> int:
    key = "general.alignment"
    if key not in header.metadata:
        return ALIGNMENT
    value = header.metadata[key]
    if header.types[key] != UINT32 or value & (value - 1) or not 1 <= value <= ALIGNMENT_LIMIT:
        what = f"is {shown(str(value))} of type {header.types[key]}"
        raise ModelFormatError(path, f"{what}; it must be a UINT32 power of two up to {ALIGNMENT_LIMIT}", field=key)
    return int(value)


def _tensor(path: Path, raw: RawTensor, start: int, size: int | None, alignment: int) -> TensorInfo:
    """A tensor info, checked; `size`: of the file, None: it may end anywhere. Python integers: nothing overflows."""

    def error(problem: str) -> ModelFormatError:
        return ModelFormatError(path, problem, field=raw.name, offset=raw.at)

    try:
        quant = by_ggml_id(raw.ggml_id)
    except UnsupportedModelError as unknown:
        raise error(str(unknown)) from None
    if any(length > ELEMENT_LIMIT for length in raw.sizes) or math.prod(raw.sizes) > ELEMENT_LIMIT:
        raise error(f"has the shape {raw.sizes}; at most {ELEMENT_LIMIT} values are allowed")
    if raw.sizes[0] % quant.block_elements:
        raise error(f"has rows of {raw.sizes[0]} values; {quant} packs {quant.block_elements} at a time")
    nbytes = quant.row_bytes(raw.sizes[0]) * math.prod(raw.sizes[1:])
    if raw.offset % alignment:
        raise error(f"starts at {raw.offset}, which is not a multiple of the alignment {alignment}")
    missing = start + raw.offset + nbytes - (2**63 if size is None else size)
    if missing > (0 if nbytes else alignment):
        raise error(f"ends {missing} bytes after the end of the file; the file is truncated or damaged")
    return TensorInfo(raw.name, raw.sizes[::-1], quant, (ByteRange(path, start + raw.offset, nbytes),))


def check_overlap(path: Path, tensors: dict[str, TensorInfo]) -> None:
    """Raise ModelFormatError if two tensors of this file share bytes."""
    end, before = 0, ""
    for tensor in sorted((tensor for tensor in tensors.values() if tensor.nbytes), key=lambda tensor: tensor.ranges[0].offset):
        place = tensor.ranges[0]
        if place.offset < end:
            raise ModelFormatError(path, f"shares bytes with {before!r}", field=tensor.name, offset=place.offset)
        end, before = place.offset + place.nbytes, tensor.name
