"""JSON from checkpoints: strict, with caps on size and depth, duplicates refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from lacewing.errors import ModelFormatError
from lacewing.formats.files import check_inside, open_regular, shown

SIZE_LIMIT = 64 * 2**20  # bytes
DEPTH_LIMIT = 64
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_ODD_NUMBER = re.compile(r"[0-9]{41}|-0")  # what the parser's own integers would take too long for, or lose


def parse(path: Path, text: bytes, field: str | None = None) -> Any:
    """A JSON document as Python values. Raises ModelFormatError for anything that strict JSON does not allow."""

    def refuse(problem: str) -> NoReturn:
        raise ModelFormatError(path, f"is not valid JSON: {problem}", field=field)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            refuse(f"the key {shown(next(name for name in names if names.count(name) > 1))!r} occurs twice")
        return found

    def integer(digits: str) -> int | float:
        return int(digits) if len(digits) <= 40 and digits != "-0" else real(digits)

    def real(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else refuse(f"the number {digits[:20]} is too large")

    try:
        document = text.decode("utf-8")
        whole = integer if _ODD_NUMBER.search(document) else None  # the headers of large models have a million numbers
        value = json.loads(document, object_pairs_hook=unique, parse_int=whole, parse_float=real, parse_constant=refuse)
        if _SURROGATE.search(document):
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a surrogate pair is no text
    except UnicodeError:
        refuse("it is not UTF-8 text")
    except RecursionError:
        refuse("it is nested too deeply")
    except ValueError as error:
        refuse(str(error)[:200])
    if _too_deep(value, DEPTH_LIMIT):
        refuse(f"it is nested more than {DEPTH_LIMIT} deep")
    return value


def _too_deep(value: Any, levels: int) -> bool:
    level = [value]
    while level and levels >= 0:
        level = [inner for outer in level for inner in _children(outer) if isinstance(inner, dict | list)]
        levels -= 1
    return bool(level)


def _children(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def read_limited(path: Path) -> bytes:
    """All bytes of a small regular file. Raises ModelFormatError above SIZE_LIMIT."""
    file, size = open_regular(path)
    with file:
        if size > SIZE_LIMIT:
            raise ModelFormatError(path, f"has {size} bytes; at most {SIZE_LIMIT} are read")
        return file.read(SIZE_LIMIT + 1)


class FolderMetadata(Mapping[str, Any]):
    """The JSON files and templates of a folder, under their names; each is read when it is first asked for."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._values: dict[str, Any] = {}
        self._names = sorted(path.name for path in folder.iterdir()
                             if path.suffix in (".json", ".jinja") and not path.name.endswith(".index.json")
                             and path.is_file())  # fmt: skip

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            if name not in self._names:
                raise KeyError(name)
            path = self._folder / name
            check_inside(path, self._folder)
            text = read_limited(path)
            self._values[name] = parse(path, text) if path.suffix == ".json" else _text(path, text)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


def _text(path: Path, text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelFormatError(path, "is not UTF-8 text", offset=error.start) from None
