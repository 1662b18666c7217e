"""What a session file says of the model that it was saved with, and of its template: those of this machine, or of a server."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lacewing.chat.session.conversation import Conversation
from lacewing.chat.session.session import Session
from lacewing.placement.info import ModelInfo

_START, _SAMPLE = 1 << 20, 1 << 16


@dataclass(frozen=True)
class Identity:
    """A model by its files. `header`: SHA-256 of each file's first MiB, and of samples of its middle and end; paths may change."""

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
    """Without a hash if a file can no longer be read, which loses the KV cache but not the conversation."""
    path, digest, total = info.checkpoint.path, hashlib.sha256(), 0
    try:
        for file in info.checkpoint.files or (path,):
            size, sample = _sample(Path(file))
            total += size
            digest.update(size.to_bytes(8, "little") + sample)
    except OSError:
        return Identity(str(path.absolute()), 0, f"gone {os.getpid()}", info.spec.name, info.spec.architecture)
    return Identity(str(path.absolute()), total, digest.hexdigest(), info.spec.name, info.spec.architecture)


def _sample(path: Path) -> tuple[int, bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        parts = [file.read(_START)]
        for at in (size // 2, max(0, size - _SAMPLE)):
            file.seek(at)
            parts.append(file.read(_SAMPLE))
    return size, b"".join(parts)


def model_of(chat: Conversation) -> Identity:
    """The model of a conversation; one that a server has goes by its address, since its files are not here."""
    if isinstance(chat, Session):
        return identity_of(chat.current.info)
    return Identity(chat.place, 0, f"{chat.place} {chat.name}", chat.name, "")


def template_of(chat: Conversation) -> dict[str, str]:
    """As it was chosen; a server renders messages itself."""
    if isinstance(chat, Session):
        return {"choice": chat.formatter.choice, "sha256": chat.formatter.template.sha256}
    return {"choice": "auto", "sha256": ""}
