"""A session as JSON: strict on the way in, with a checksum, so that a damaged or foreign file is recognised.

Version 2: the first line says what a list of sessions shows, and how many bytes follow it. Version 1 has no such line.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from lacewing.chat.session.settings import Message, Settings
from lacewing.errors import LacewingError, ModelFormatError, OptionError
from lacewing.formats.files import open_regular
from lacewing.formats.json_files import parse
from lacewing.options import Sampling, format_bytes

VERSION = 2
MARK = "lacewing_session"
MAX_BYTES = 64 << 20  # a conversation that a model can hold has a tenth of it
MAX_VALUES = 1 << 21  # of the JSON: the ids of a KV cache, and three values for each message
HEAD_BYTES = 64 << 10  # of the first line
_CHECKSUM = re.compile(rb'("checksum": ")([0-9a-f]{64})(")')
_BLANK = b"0" * 64
_NONE = type(None)
_BODY = {"template", "settings", "messages", "view", "keys_values"}
_PARTS = {1: _BODY | {MARK, "checksum", "saved", "model"}, 2: _BODY | {MARK, "checksum", "saved", "model", "count", "kv", "nbytes"}}
_SHAPES: dict[str, dict[str, tuple[type, ...]]] = {
    "model": {"path": (str,), "nbytes": (int,), "header": (str,), "name": (str,), "architecture": (str,)},
    "template": {"choice": (str,), "sha256": (str,)},
    "view": {"hidden": (int,), "summary": (str, _NONE)},
    "keys_values": {"file": (str,), "nbytes": (int,), "sha256": (str,), "ids": (list,), "device": (str,)},
    "kv": {"file": (str,), "tokens": (int,)},
}
# What JSON may have for the fields of Settings and Sampling.
_FIELDS = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,), "None": (_NONE,), "tuple[str, ...]": (list,),
           "Mapping[int, float]": (list,), "Sampling": (dict,)}  # fmt: skip


class SessionFileError(LacewingError):
    """A session file that is damaged, of another program, or of a later version; `problem` says which, the message where too."""

    def __init__(self, problem: str, path: Path | None = None, state: str = ""):
        self.problem = problem
        super().__init__((f"{path} " if path else "") + problem + (f"; {state}" if state else ""))


@dataclasses.dataclass(frozen=True)
class Head:
    """What a list of sessions shows. `path`: of the model; `kv`: the file of the KV cache and its tokens."""

    saved: str
    model: str
    path: str
    count: int
    kv: tuple[str, int] | None


def encode(parts: dict[str, Any]) -> bytes:
    """The bytes of a session file. Raises SessionFileError for what would not load."""
    kv = parts["keys_values"]
    values = 3 * len(parts["messages"]) + (len(kv["ids"]) if kv else 0)
    body = ",\n".join(f"{json.dumps(key)}: {json.dumps(parts[key])}" for key in sorted(_BODY)).encode() + b"}\n"
    first = {
        MARK: VERSION,
        "checksum": _BLANK.decode(),
        "saved": parts["saved"],
        "model": parts["model"],
        "count": len(parts["messages"]),
        "kv": {"file": kv["file"], "tokens": len(kv["ids"])} if kv else None,
        "nbytes": len(body),
    }
    line = json.dumps(first).encode()[:-1] + b",\n"
    if len(line) > HEAD_BYTES or len(line) + len(body) > MAX_BYTES or values > MAX_VALUES // 2:
        raise SessionFileError(
            f"the conversation is larger than a session file may be, {format_bytes(MAX_BYTES)}; /export writes it"
        )
    text = line + body
    return text.replace(_BLANK, hashlib.sha256(text).hexdigest().encode(), 1)


def read_head(path: Path) -> Head:
    """Of the file's first line; of a file of version 1, which has to be read whole. Raises SessionFileError."""
    data, size = read_bytes(path, HEAD_BYTES)
    line, newline, _ = data.partition(b"\n")
    if newline and line.endswith(b",") and line.startswith(b'{"'):
        found = _parsed(path, line[:-1] + b"}")
        _check_parts(path, found, {MARK, "checksum", *_PARTS[VERSION]} - _BODY)
        if size != len(line) + 1 + found["nbytes"]:
            raise SessionFileError("is damaged: it does not have the bytes that it says", path)
        count, kv = found["count"], found["kv"] and (found["kv"]["file"], found["kv"]["tokens"])
    else:
        found = read(path)
        count, cache = len(found["messages"]), found["keys_values"]
        kv = cache and (cache["file"], len(cache["ids"]))
    return Head(found["saved"], found["model"]["name"], found["model"]["path"], count, kv)


def read_bytes(path: Path, limit: int) -> tuple[bytes, int]:
    """The first `limit` bytes of a file, and its size. Raises SessionFileError; a pipe is not waited for."""
    try:
        file, size = open_regular(path)
        with file:
            return file.read(limit), size
    except ModelFormatError as error:
        raise SessionFileError(error.problem, path) from None
    except OSError as error:
        raise SessionFileError(f"cannot be read: {error.strerror}", path) from None


def read(path: Path) -> dict[str, Any]:
    """The parts of a session file. Raises SessionFileError."""
    data, size = read_bytes(path, MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise SessionFileError(f"has {format_bytes(size)}; a session file has at most {format_bytes(MAX_BYTES)}", path)
    return decode(path, data)


def decode(path: Path, data: bytes) -> dict[str, Any]:
    """The parts of a session file, of the right types. Raises SessionFileError."""
    document = _parsed(path, data)
    match = _CHECKSUM.search(data)
    if match is None:
        _refuse(path, "is damaged: parts of it are missing or unknown")
    blank = data[: match.start(2)] + _BLANK + data[match.end(2) :]
    _check_parts(path, document, _PARTS[document[MARK]])
    if hashlib.sha256(blank).hexdigest().encode() != match[2]:
        _refuse(path, "is damaged: its checksum is wrong")
    if not isinstance(document["messages"], list) or not all(map(_is_message, document["messages"])):
        _refuse(path, "is damaged: its messages have another shape")
    return document


def _parsed(path: Path, data: bytes) -> dict[str, Any]:
    try:
        document = parse(path, data, values=MAX_VALUES, surrogates=True)
    except ModelFormatError as error:
        _refuse(path, f"is damaged or not a session file: it {error.problem[:100]}")
    if not isinstance(document, dict) or MARK not in document:
        _refuse(path, "is not a session of Lacewing")
    version = document[MARK]
    if type(version) is not int or version not in _PARTS:
        _refuse(path, f"has version {version!r:.20}; this Lacewing reads versions up to {VERSION}")
    return document


def _check_parts(path: Path, document: dict[str, Any], names: set[str]) -> None:
    """Raise SessionFileError unless all parts are there, each of its shape."""
    if set(document) != names:
        _refuse(path, "is damaged: parts of it are missing or unknown")
    for name in sorted(names & set(_SHAPES)):
        if not (document[name] is None and name in ("keys_values", "kv")) and not _fits(document[name], _SHAPES[name]):
            _refuse(path, f"is damaged: its part {name} has another shape")
    if not all(type(document[name]) is int for name in names & {"count", "nbytes"}):
        _refuse(path, "is damaged: its first line has another shape")
    try:
        datetime.fromisoformat(document["saved"])
    except (TypeError, ValueError):
        _refuse(path, "is damaged: the time at which it was saved is no time")


def _refuse(path: Path, problem: str) -> NoReturn:
    raise SessionFileError(problem, path, "nothing was loaded")


def settings_to(settings: Settings) -> dict[str, Any]:
    """For JSON."""
    found = dataclasses.asdict(settings)
    found["sampling"]["logit_bias"] = [[token, bias] for token, bias in settings.sampling.logit_bias.items()]
    return found


def settings_from(path: Path, found: Any) -> Settings:
    """Raises SessionFileError for values out of range."""
    try:
        _check_fields(Settings, found)
        sampling = dict(found["sampling"])
        _check_fields(Sampling, sampling)
        sampling |= {"logit_bias": dict(sampling["logit_bias"]), "stop": tuple(sampling["stop"])}
        return Settings(**{**found, "sampling": Sampling(**sampling)})
    except (LacewingError, TypeError, ValueError, KeyError, AttributeError) as error:
        _refuse(path, f"is damaged: its settings are not valid ({error})")


def _check_fields(kind: type[Settings] | type[Sampling], found: dict[str, Any]) -> None:
    """Raise OptionError for a value of another type than its field has; a field that is new since is not there."""
    for each in dataclasses.fields(kind):
        kinds = [allowed for word in str(each.type).split(" | ") for allowed in _FIELDS[word]]
        if each.name in found and type(found[each.name]) not in kinds:
            raise OptionError(f"{each.name} is of another type")


def _fits(part: Any, shape: dict[str, tuple[type, ...]]) -> bool:
    return isinstance(part, dict) and set(part) == set(shape) and all(type(part[key]) in kinds for key, kinds in shape.items())


def _is_message(message: Any) -> bool:
    return (
        isinstance(message, dict)
        and set(message) <= {"role", "content", "reasoning"}
        and {"role", "content"} <= set(message)
        and all(isinstance(value, str) for value in message.values())
        and message["role"] in ("user", "assistant")
    )


def kept_of(messages: Sequence[Message]) -> list[Message]:
    """What is kept of messages."""
    return [{key: each[key] for key in ("role", "content", "reasoning") if key in each} for each in messages]
