"""What a checkpoint is once opened: metadata and named byte ranges. Knows no device and no model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lacewing.formats.files import Links
from lacewing.quants.base import Quant


@dataclass(frozen=True)
class ByteRange:
    """Some bytes of a file."""

    path: Path
    offset: int
    nbytes: int


@dataclass(frozen=True)
class TensorInfo:
    """One named tensor. `shape` is row-major, outermost first: a linear weight is (out, in), experts are (E, out, in).

    `ranges` hold the values one after the other; one range, or one for each index of the first axis or for some rows of it, or,
    of factors, one for each of their rows, where the same ones may come again.
    `scales` names a tensor with a factor for each block of `scale_block` rows and columns, (..., rows / R, columns / C) rounded up:
    values are multiplied by it. Made by the models, which know what belongs together.
    """

    name: str
    shape: tuple[int, ...]
    quant: Quant
    ranges: tuple[ByteRange, ...]
    scales: str | None = None
    scale_block: tuple[int, int] = (1, 1)

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.ranges)


Identity = tuple[int, int, int, int, int]  # of a file: device, inode, bytes, times of the last change of content and of entry, ns


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint; every extent has been checked against its file, unless `whole` is False: then only headers are here.

    `metadata` of a GGUF file: its keys. Of a Hugging Face directory: its JSON files under their names
    (`config.json`, `generation_config.json`, `tokenizer_config.json`, ...), and `chat_template.jinja` as text.
    `links`: where links of it may lead; None: beside `path`.
    `identities` of `files`: what they were when their headers were read, which tells them from later ones of the same names.
    """

    path: Path
    format: str  # "gguf" or "safetensors"
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    files: tuple[Path, ...] = field(default=())
    links: Links | None = None
    whole: bool = True
    identities: Mapping[Path, Identity] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def missing_bytes(self) -> int:
        """Of the tensors, what lies behind the ends of the files."""
        if self.whole:
            return 0
        sizes = {path: path.stat().st_size for path in self.files}
        parts = (part for tensor in self.tensors.values() for part in tensor.ranges)
        return sum(min(part.nbytes, max(0, part.offset + part.nbytes - sizes[part.path])) for part in parts)
