"""safetensors: u64 length, that many bytes of JSON {name: {dtype, shape, data_offsets}}, then the tensors without gaps.

A folder may spread a model over several files; `model.safetensors.index.json` then says which tensor is where.
The tensors of a file must cover it exactly, from the header to the end: no gap, no overlap, nothing behind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lacewing.errors import ModelFormatError, UnsupportedModelError
from lacewing.formats.checkpoint import ByteRange, Checkpoint, TensorInfo
from lacewing.formats.files import (
    PICKLE_SUFFIXES,
    START,
    Links,
    holds_model,
    open_regular,
    read_bounded,
    refuse_foreign,
    shown,
    visible,
)
from lacewing.formats.json_files import SIZE_LIMIT, FolderMetadata, parse
from lacewing.quants import QUANTS, Quant

HEADER_LIMIT = 100_000_000  # bytes, the format's own
TENSOR_LIMIT = 2**17
VALUE_LIMIT = 12 * TENSOR_LIMIT  # of a header's JSON; a tensor of two axes has eight
# Types that are read: our formats of the same name.
_READ = frozenset(("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "F8_E4M3", "F8_E8M0"))
# Types that are only checked, with (values, bytes) of the smallest whole number of bytes.
_CHECKED = {**dict.fromkeys(("F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), (1, 1)), "F4": (2, 1),
            "F6_E2M3": (4, 3), "F6_E3M2": (4, 3), "C64": (1, 8)}  # fmt: skip
_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def open_file(path: Path, links: Links, whole: bool = True) -> Checkpoint:
    """Open one .safetensors file, with the JSON files beside it, or beside what it links to. Raises ModelFormatError."""
    if not (path.parent / "config.json").exists():
        path = path.resolve()
    return Checkpoint(path, "safetensors", FolderMetadata(path.parent, links), read_header(path, whole), (path,), links, whole)


def open_folder(folder: Path, links: Links, whole: bool = True) -> Checkpoint:
    """Open a Hugging Face folder: one .safetensors file, or several with an index. Raises ModelFormatError."""
    index = folder / INDEX
    if index.exists() and not (folder / _FILE).exists():  # transformers, too, takes the one file where both are there
        links.check(index)
        places = read_index(index)
        tensors = _read_shards(folder, index, places, links, whole)
        files = tuple(folder / name for name in sorted(set(places.values())))
    else:
        files = (_only_file(folder),)
        links.check(files[0])
        tensors = read_header(files[0], whole)
    return Checkpoint(folder, "safetensors", FolderMetadata(folder, links), tensors, files, links, whole)


def _only_file(folder: Path) -> Path:
    names = visible(folder)
    files = [folder / name for name in names if name.endswith(".safetensors")]
    if folder / _FILE in files:
        return folder / _FILE
    if files and all(path.name.startswith("consolidated") for path in files):
        problem = "is in Mistral's own form (consolidated*.safetensors, params.json, tekken.json), which is not read"
        raise ModelFormatError(
            folder, f"{problem}; fetch a GGUF file, or the model-*.safetensors with config.json and tokenizer.json"
        )
    if len(files) == 1:
        return files[0]
    if files:
        raise ModelFormatError(folder, f"has {len(files)} .safetensors files but no {INDEX}; fetch the index, or name one file")
    for path in (folder / name for name in names):
        if path.suffix.lower() in PICKLE_SUFFIXES:
            refuse_foreign(path, b"")
    inner = [name for name in names if (folder / name).is_dir() and holds_model(folder / name)]
    there = f"; name one of its folders: {', '.join(inner[:20])}" if inner else ""
    raise ModelFormatError(folder, f"has neither .safetensors files nor a .gguf file{there}")


def read_index(path: Path) -> dict[str, str]:
    """Tensor name to file name, which is the name of a file beside the index. Raises ModelFormatError."""
    document = parse(path, read_bounded(path, SIZE_LIMIT), strict=False)
    places = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(places, dict) or not places:
        raise ModelFormatError(path, "must be an object with tensor names and file names", field="weight_map")
    if not all(isinstance(file, str) for file in places.values()) or not all(map(_is_plain, set(places.values()))):
        name, file = next((name, file) for name, file in places.items() if not isinstance(file, str) or not _is_plain(file))
        problem = f"{shown(str(file))!r} is not the name of a .safetensors file in this folder"
        raise ModelFormatError(path, problem, field=shown(name))
    return places


def _is_plain(file: str) -> bool:
    """Whether this names a .safetensors file of the same folder."""
    plain = file.isprintable() and file == Path(file).name and not {"\\", ":"} & set(file)
    return plain and file.endswith(".safetensors")


def _read_shards(folder: Path, index: Path, places: dict[str, str], links: Links, whole: bool) -> dict[str, TensorInfo]:
    """The tensors of the files that the index names, which is all that transformers takes from it.

    A tensor that the index places elsewhere, or not at all, is one nevertheless; one that is in no file is the model's to miss.
    """
    tensors: dict[str, TensorInfo] = {}
    for file in sorted(set(places.values())):
        path = folder / file
        if not path.exists():
            raise ModelFormatError(index, f"names the file {file}, which is missing", field="weight_map")
        links.check(path)
        for name, tensor in read_header(path, whole).items():
            if name in tensors:
                other = tensors[name].ranges[0].path.name
                raise ModelFormatError(path, f"is in {other}, too; which of them holds is unclear", field=shown(name))
            tensors[name] = tensor
    return tensors


def read_header(path: Path, whole: bool = True) -> dict[str, TensorInfo]:
    """The tensors of one file, in the order of their bytes; unless `whole`, the file may end before they do.

    Raises ModelFormatError, or UnsupportedModelError for a type.
    """
    file, size = open_regular(path)
    with file:
        start = file.read(START)
        refuse_foreign(path, start)
        if len(start) < 8:
            raise ModelFormatError(path, f"has {size} bytes; a safetensors file has at least 8", offset=0)
        length = int.from_bytes(start[:8], "little")
        if length > HEADER_LIMIT or 8 + length > size:
            problem = f"is {length}; {size - 8} bytes follow, and at most {HEADER_LIMIT} are allowed"
            raise ModelFormatError(path, problem, field="header length", offset=0)
        file.seek(8)
        text = file.read(length)
    if len(text) < length:
        raise ModelFormatError(path, "became shorter while it was read", field="header", offset=len(text))
    document = parse(path, text, "header", values=VALUE_LIMIT) if text.lstrip(b" \t\r\n").startswith(b"{") else None
    if not isinstance(document, dict):
        raise ModelFormatError(path, "the header must be a JSON object", field="header", offset=8)
    _check_metadata(path, document.pop("__metadata__", None))
    if len(document) > TENSOR_LIMIT:
        raise ModelFormatError(path, f"has {len(document)} tensors; at most {TENSOR_LIMIT} are read", field="header")
    tensors = [_tensor(path, name, entry, 8 + length) for name, entry in document.items()]
    tensors.sort(key=lambda tensor: (tensor.ranges[0].offset, tensor.nbytes))
    _check_cover(path, tensors, 8 + length, size, whole)
    _refuse_types(path, tensors)
    return {tensor.name: tensor for tensor in tensors}


def _check_metadata(path: Path, metadata: Any) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ModelFormatError(path, "must be an object of strings", field="__metadata__")


def _quant(dtype: Any) -> Quant | None:
    if not isinstance(dtype, str):
        return None
    if dtype in _CHECKED:
        return Quant(dtype, None, *_CHECKED[dtype], lambda blocks: blocks)
    return QUANTS[dtype] if dtype in _READ else None


def _refuse_types(path: Path, tensors: list[TensorInfo]) -> None:
    for tensor in tensors:
        if tensor.quant.name in _CHECKED:
            raise UnsupportedModelError(
                f"{path}: tensor {shown(tensor.name)!r} has the type {tensor.quant}, which this version cannot compute with; "
                "fetch a version of the model in BF16, F16 or F32, or a GGUF file"
            )


def _tensor(path: Path, name: str, entry: Any, base: int) -> TensorInfo:
    """One entry, checked but for its place among the others."""

    def error(problem: str) -> ModelFormatError:
        return ModelFormatError(path, problem, field=shown(name))

    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise error("must be an object with dtype, shape and data_offsets")
    shape, offsets = entry["shape"], entry["data_offsets"]
    for values in (shape, offsets):
        if not isinstance(values, list) or not (
            set(map(type, values)) <= {int} and 0 <= min(values, default=0) <= max(values, default=0) < 2**64
        ):
            raise error("shape and data_offsets must be lists of whole numbers from 0 up")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise error(f"data_offsets {offsets[:4]} must be a begin and an end")
    quant = _quant(entry["dtype"])
    if quant is None:
        raise error(f"has the type {shown(str(entry['dtype']))!r}, which safetensors does not know")
    elements, nbytes = _checked_product(shape), offsets[1] - offsets[0]
    if elements is None or elements % quant.block_elements or quant.row_bytes(elements) != nbytes:
        raise error(f"the shape {shape[:8]} of {quant} does not take the {nbytes} bytes from {offsets[0]} to {offsets[1]}")
    place = ByteRange(path, base + offsets[0], offsets[1] - offsets[0])
    return TensorInfo(name, tuple(shape), quant, (place,))


def _checked_product(shape: list[int]) -> int | None:
    """The number of elements; None if an unsigned 64-bit product would overflow on the way."""
    elements = 1
    for length in shape:
        elements *= length
        if elements >= 2**64:
            return None
    return elements


def _check_cover(path: Path, tensors: list[TensorInfo], start: int, size: int, whole: bool) -> None:
    """Raise ModelFormatError unless the tensors follow one another from `start` to the end of the file, or beyond."""
    end = start
    for tensor in tensors:
        place = tensor.ranges[0]
        if place.offset != end:
            problem = f"begins at byte {place.offset}; the tensor before it ends at {end}"
            raise ModelFormatError(path, problem, field=shown(tensor.name), offset=place.offset)
        end = place.offset + place.nbytes
    if end != size and (whole or end < size):
        what = "the file is truncated" if end > size else "unclaimed bytes follow"
        raise ModelFormatError(path, f"the tensors end at byte {end}, the file at {size}; {what}", offset=min(end, size))
