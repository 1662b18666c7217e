"""JSON from checkpoints, with caps on bytes, values and depth.

Files that transformers reads are read as Python reads them (NaN, the last of two equal keys); headers strictly.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from lacewing.errors import ModelFormatError
from lacewing.formats.files import Links, read_bounded, shown, visible

SIZE_LIMIT = 64 * 2**20  # bytes; the index of a model with 100,000 tensors takes about 12 MiB
VALUE_LIMIT = 2**20  # values of a document, each of which costs far more memory than its bytes
DEPTH_LIMIT = 64
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_ODD_NUMBER = re.compile(r"[0-9]{41}|-0")  # what the parser's own integers would take too long for, or lose
# What is read beside the weights; folders of trainers hold many more, of any size.
_READ = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
         "chat_template.json", "chat_template.jinja", "1_Pooling/config.json")  # fmt: skip
_MORE_TEMPLATES = "additional_chat_templates"  # a folder


def parse(
    path: Path, text: bytes, field: str | None = None, *, strict: bool = True, values: int = VALUE_LIMIT, surrogates: bool = False
) -> Any:
    """A JSON document as Python values, which take memory in proportion to what such a document needs.

    `strict`: without NaN, infinities and equal keys in an object. `values`: how many there may be, keys not counted.
    `surrogates`: halves of a pair may stand alone, as in what a person types.
    Raises ModelFormatError.
    """

    def refuse(problem: str) -> NoReturn:
        raise ModelFormatError(path, f"is not valid JSON: {problem}", field=field)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            refuse(f"the key {shown(twice)!r} occurs twice")
        return found

    def integer(digits: str) -> int | float:
        return int(digits) if len(digits) <= 40 and digits != "-0" else real(digits)

    def real(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else refuse(f"the number {digits[:20]} is too large")

    if _values(text, values) > values:
        raise ModelFormatError(path, f"has more than {values} values in its JSON", field=field)
    hooks: dict[str, Any] = {"object_pairs_hook": unique, "parse_float": real, "parse_constant": refuse} if strict else {}
    try:
        document = text.decode("utf-8")
        whole = integer if _ODD_NUMBER.search(document) else None  # the headers of large models have a million numbers
        value = json.loads(document, parse_int=whole, **hooks)
        if not surrogates and _SURROGATE.search(document):
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


def _values(text: bytes, enough: int) -> int:
    """How many values a document has; up to `enough`, what its strings hold is counted with them."""
    count = 1 + sum(text.count(mark) for mark in (b",", b"[", b"{"))
    if count <= enough:
        return count
    marks = np.frombuffer(text.replace(b"\\\\", b"").replace(b'\\"', b""), np.uint8)
    inside = np.bitwise_xor.accumulate(marks == ord('"'))  # a string
    return 1 + sum(int(np.count_nonzero((marks == ord(mark)) & ~inside)) for mark in ",[{")


def _too_deep(value: Any, levels: int) -> bool:
    level = [value]
    while level and levels >= 0:
        level = [inner for outer in level for inner in _children(outer) if isinstance(inner, dict | list)]
        levels -= 1
    return bool(level)


def _children(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


class FolderMetadata(Mapping[str, Any]):
    """The JSON files and templates of a folder that say something of its model, under their names; read when first asked for.

    Templates of a folder within it are `additional_chat_templates/NAME.jinja`.
    """

    def __init__(self, folder: Path, links: Links):
        self._folder, self._links = folder, links
        self._values: dict[str, Any] = {}
        self._names = [name for name in _READ if (folder / name).is_file()]
        more = folder / _MORE_TEMPLATES
        if more.is_dir():
            names = (f"{_MORE_TEMPLATES}/{name}" for name in visible(more) if name.endswith(".jinja"))
            self._names += [name for name in names if (folder / name).is_file()]

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            if name not in self._names:
                raise KeyError(name)
            path = self._folder / name
            self._links.check(path)
            text = read_bounded(path, SIZE_LIMIT)
            self._values[name] = parse(path, text, strict=False) if path.suffix == ".json" else _text(path, text)
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
