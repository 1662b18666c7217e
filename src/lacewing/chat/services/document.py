"""A session as JSON: strict on the way in, with a checksum, so that a damaged or foreign file is recognised."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any, NoReturn

from lacewing.chat.session.settings import Message, Settings
from lacewing.errors import LacewingError, OptionError
from lacewing.options import Sampling

VERSION = 1
MARK = "lacewing_session"
MAX_BYTES = 256 << 20
_CHECKSUM = re.compile(rb'("checksum": ")([0-9a-f]{64})(")')
_BLANK = b"0" * 64
_PARTS = {MARK, "checksum", "saved", "model", "template", "settings", "messages", "view", "keys_values"}
_SHAPES: dict[str, dict[str, type | tuple[type, ...]]] = {
    "model": {"path": str, "nbytes": int, "header": str, "name": str, "architecture": str},
    "template": {"choice": str, "sha256": str},
    "view": {"hidden": int, "summary": (str, type(None))},
    "keys_values": {"file": str, "nbytes": int, "sha256": str, "ids": list, "device": str},
}


class SessionFileError(LacewingError):
    """A session file that is damaged, of another program, or of a later version; `problem` says which, the message where too."""

    def __init__(self, problem: str, path: Path | None = None, state: str = ""):
        self.problem = problem
        super().__init__((f"{path} " if path else "") + problem + (f"; {state}" if state else ""))


def encode(parts: dict[str, Any]) -> bytes:
    """The bytes of a session file."""
    text = json.dumps({MARK: VERSION, "checksum": _BLANK.decode(), **parts}, indent=1).encode()
    return text.replace(_BLANK, hashlib.sha256(text).hexdigest().encode(), 1)


def decode(path: Path, data: bytes) -> dict[str, Any]:
    """The parts of a session file, of the right types. Raises SessionFileError."""

    def refuse(problem: str) -> NoReturn:
        raise SessionFileError(problem, path, "nothing was loaded")

    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        refuse(f"is damaged or not a session file: it is not JSON ({str(error)[:100]})")
    if not isinstance(document, dict) or MARK not in document:
        refuse("is not a session of Lacewing")
    if document[MARK] != VERSION:
        refuse(f"has version {document[MARK]!r:.20}; this Lacewing reads version {VERSION}")
    match = _CHECKSUM.search(data)
    if match is None or set(document) != _PARTS:
        refuse("is damaged: parts of it are missing or unknown")
    blank = data[: match.start(2)] + _BLANK + data[match.end(2) :]
    if hashlib.sha256(blank).hexdigest().encode() != match[2]:
        refuse("is damaged: its checksum is wrong")
    for name, shape in _SHAPES.items():
        part = document[name]
        if not (name == "keys_values" and part is None) and not _fits(part, shape):
            refuse(f"is damaged: its part {name} has another shape")
    if not isinstance(document["messages"], list) or not all(map(_is_message, document["messages"])):
        refuse("is damaged: its messages have another shape")
    return document


def settings_to(settings: Settings) -> dict[str, Any]:
    """For JSON."""
    found = dataclasses.asdict(settings)
    found["sampling"]["logit_bias"] = [[token, bias] for token, bias in settings.sampling.logit_bias.items()]
    return found


def settings_from(path: Path, found: Any) -> Settings:
    """Raises SessionFileError for values out of range."""
    try:
        sampling = dict(found["sampling"])
        sampling["logit_bias"] = {int(token): float(bias) for token, bias in sampling["logit_bias"]}
        settings = Settings(**{**found, "sampling": Sampling(**{**sampling, "stop": tuple(sampling["stop"])})})
        if not isinstance(settings.system, str | None) or not isinstance(settings.thinking, bool | None):
            raise OptionError("system or thinking is of another type")
    except (LacewingError, TypeError, ValueError, KeyError, AttributeError) as error:
        problem = f"is damaged: its settings are not valid ({error})"
        raise SessionFileError(problem, path, "nothing was loaded") from None
    return settings


def _fits(part: Any, shape: dict[str, type | tuple[type, ...]]) -> bool:
    return (
        isinstance(part, dict)
        and set(part) == set(shape)
        and all(isinstance(part[key], kind) and not isinstance(part[key], bool) for key, kind in shape.items())
    )


def _is_message(message: Any) -> bool:
    return (
        isinstance(message, dict)
        and set(message) <= {"role", "content", "reasoning"}
        and {"role", "content"} <= set(message)
        and all(isinstance(value, str) for value in message.values())
        and message["role"] in ("user", "assistant")
    )


def message_of(message: Message) -> Message:
    """What is kept of a message."""
    return {key: message[key] for key in ("role", "content", "reasoning") if key in message}
