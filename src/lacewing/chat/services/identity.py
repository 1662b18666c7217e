"""Identifies a model by its files, without reading them whole."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lacewing.errors import ModelFormatError
from lacewing.placement.info import ModelInfo

_START, _SAMPLE = 1 << 20, 1 << 16


@dataclass(frozen=True)
class Identity:
    """`header`: SHA-256 of each file's first MiB, and of samples of its middle and end; the path may change."""

    path: str
    nbytes: int
    header: str
    name: str
    architecture: str

    def same_model(self, other: Identity) -> bool:
        return (self.nbytes, self.header) == (other.nbytes, other.header)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def identity_of(info: ModelInfo) -> Identity:
    """Raises ModelFormatError if a file can no longer be read."""
    path = info.checkpoint.path
    files = info.checkpoint.files or (path,)
    digest, total = hashlib.sha256(), 0
    for file in files:
        size, sample = _sample(Path(file))
        total += size
        digest.update(size.to_bytes(8, "little") + sample)
    return Identity(str(path.absolute()), total, digest.hexdigest(), info.spec.name, info.spec.architecture)


def _sample(path: Path) -> tuple[int, bytes]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            parts = [file.read(_START)]
            for at in (size // 2, max(0, size - _SAMPLE)):
                file.seek(at)
                parts.append(file.read(_SAMPLE))
    except OSError as error:
        raise ModelFormatError(path, f"can no longer be read: {error.strerror}") from None
    return size, b"".join(parts)
