"""The header of one GGUF file, versions 2 and 3: typed keys, then tensor infos.

    "GGUF" | u32 version | u64 tensors | u64 keys | keys | tensor infos | padding | tensor data
    key:          string name | u32 type | value        string: u64 length | UTF-8
    array value:  u32 element type | u64 count | elements
    tensor info:  string name | u32 n | u64 size x n, fastest axis first | u32 type | u64 offset in the tensor data

Everything is little-endian. A count or length is compared with the bytes that are left before anything is made of it.
The header is read, not mapped: a file cut short meanwhile gives an error and not a signal.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lacewing.errors import ModelFormatError
from lacewing.formats.files import shown

VERSIONS = (2, 3)
HEADER_LIMIT = 256 * 2**20  # bytes; the largest vocabularies take about 30 MiB
KEY_LIMIT = 65535  # bytes
STRING_LIMIT = 64 * 2**20  # bytes
ITEM_LIMIT = 2**22  # strings and inner arrays of one file, which cost far more memory than bytes
TENSOR_LIMIT = 2**17
NESTING_LIMIT = 3

_STRING, _ARRAY, _BOOL = 8, 9, 7
_DTYPES = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8"}
_SCALARS = {kind: struct.Struct("<" + {"<u1": "B", "<i1": "b", "<u2": "H", "<i2": "h", "<u4": "I", "<i4": "i", "<f4": "f", "?": "B",
                                       "<u8": "Q", "<i8": "q", "<f8": "d"}[dtype]) for kind, dtype in _DTYPES.items()}  # fmt: skip
_U32, _U64 = _SCALARS[4], _SCALARS[10]
UINT32 = 4


@dataclass(frozen=True)
class RawTensor:
    """A tensor info as it stands: `sizes` fastest axis first, `offset` within the tensor data, `at` its place in the file."""

    name: str
    sizes: tuple[int, ...]
    ggml_id: int
    offset: int
    at: int


@dataclass(frozen=True)
class Header:
    """`types` gives the type number of each key; `end` is the first byte after the tensor infos."""

    version: int
    metadata: dict[str, Any]
    types: dict[str, int]
    tensors: list[RawTensor]
    end: int


class Readable(Protocol):
    """An open file, or what gives the bytes of one."""

    def read(self, size: int, /) -> bytes: ...


class HeaderReader:
    """A cursor over the start of a file; the window of bytes in memory grows as the header asks for more."""

    def __init__(self, file: Readable, size: int, path: Path):
        self._file, self._size, self._path = file, size, path
        self._data = b""
        self._at = 0
        self._items = 0

    def read(self) -> Header:
        """The whole header. Raises ModelFormatError."""
        version, tensor_count, key_count = self._start()
        metadata: dict[str, Any] = {}
        types: dict[str, int] = {}
        for index in range(key_count):
            at = self._at
            name = self._name(f"key {index}", KEY_LIMIT)
            if not name.isascii():
                raise self._error(f"the key {shown(name)!r} is not ASCII", at, f"key {index}")
            if name in metadata:
                raise self._error("the key occurs twice", at, name)
            types[name] = self._u32(name)
            metadata[name] = self._value(types[name], name, 0)
        tensors = [self._tensor(f"tensor {index}") for index in range(tensor_count)]
        return Header(version, metadata, types, tensors, self._at)

    def _error(self, problem: str, at: int, field: str) -> ModelFormatError:
        return ModelFormatError(self._path, problem, field=shown(field), offset=at)

    def _need(self, count: int, field: str) -> None:
        """Have `count` bytes from the cursor on in the window."""
        end = self._at + count
        if end <= len(self._data):
            return
        if end > self._size:
            missing = end - self._size
            raise self._error(f"needs {count} bytes, {missing} more than the file has; it is truncated", self._at, field)
        if end > HEADER_LIMIT:
            raise self._error(f"the header is longer than {HEADER_LIMIT} bytes", self._at, field)
        wanted = min(self._size, max(end, 2 * len(self._data), 2**20))
        self._data += self._file.read(wanted - len(self._data))
        if end > len(self._data):
            raise self._error("the file became shorter while it was read", len(self._data), field)

    def _u32(self, field: str) -> int:
        return int(self._scalar(_U32, field))

    def _u64(self, field: str) -> int:
        return int(self._scalar(_U64, field))

    def _scalar(self, form: struct.Struct, field: str) -> int | float:
        self._need(form.size, field)
        value: int | float = form.unpack_from(self._data, self._at)[0]
        self._at += form.size
        return value

    def _start(self) -> tuple[int, int, int]:
        self._need(4, "magic")
        if self._data[:4] != b"GGUF":
            raise self._error(f"starts with {self._data[:4]!r} instead of b'GGUF'; this is no GGUF file", 0, "magic")
        self._at = 4
        version = self._u32("version")
        if version & 0xFFFF == 0 and version:
            raise self._error("is a big-endian file; fetch or convert the little-endian one", 4, "version")
        if version not in VERSIONS:
            raise self._error(f"has version {version}; versions 2 and 3 are read", 4, "version")
        tensor_count, key_count = self._u64("tensor count"), self._u64("key count")
        left = self._size - self._at
        for count, smallest, what, at in ((tensor_count, 33, "tensor", 8), (key_count, 14, "key", 16)):
            if count > left // smallest:
                raise self._error(f"announces {count} {what}s, but only {left} bytes follow", at, f"{what} count")
        if tensor_count > TENSOR_LIMIT:
            raise self._error(f"announces {tensor_count} tensors; at most {TENSOR_LIMIT} are read", 8, "tensor count")
        return version, tensor_count, key_count

    def _text(self, field: str, limit: int) -> str:
        at = self._at
        length = self._u64(field)
        if length > limit:
            raise self._error(f"is a string of {length} bytes; at most {limit} are allowed", at, field)
        self._need(length, field)
        self._at += length
        try:
            return str(self._data[self._at - length : self._at], "utf-8")
        except UnicodeDecodeError as error:
            raise self._error("is not UTF-8 text", self._at - length + error.start, field) from None

    def _name(self, field: str, limit: int) -> str:
        at = self._at
        name = self._text(field, limit)
        if not name or not name.isprintable():
            raise self._error(f"the name {shown(name)!r} is empty or has control characters", at, field)
        return name

    def _value(self, kind: int, field: str, depth: int) -> Any:
        at = self._at
        if kind == _STRING:
            return self._text(field, STRING_LIMIT)
        if kind == _ARRAY:
            return self._array(field, depth + 1)
        if kind not in _SCALARS:
            raise self._error(f"has value type {kind}; types 0 to 12 exist", at - 4, field)
        value = self._scalar(_SCALARS[kind], field)
        if kind == _BOOL and value > 1:
            raise self._error(f"is a boolean with the value {value}; 0 and 1 are allowed", at, field)
        return bool(value) if kind == _BOOL else value

    def _array(self, field: str, depth: int) -> Any:
        """Numbers as a read-only array, strings and inner arrays as a list."""
        at = self._at
        kind, count = self._u32(field), self._u64(field)
        if kind in _DTYPES:
            return self._numbers(np.dtype(_DTYPES[kind]), count, field)
        if kind not in (_STRING, _ARRAY):
            raise self._error(f"has element type {kind}; types 0 to 12 exist", at, field)
        self._items += count if kind == _STRING else 64 * count
        if self._items > ITEM_LIMIT or (kind == _ARRAY and depth >= NESTING_LIMIT):
            raise self._error(f"has too many strings (over {ITEM_LIMIT}) or nested arrays (over {NESTING_LIMIT} deep)", at, field)
        self._need(count * (8 if kind == _STRING else 12), field)
        return self._strings(count, field) if kind == _STRING else [self._array(field, depth + 1) for _ in range(count)]

    def _numbers(self, dtype: np.dtype[Any], count: int, field: str) -> np.ndarray:
        nbytes = count * dtype.itemsize
        self._need(nbytes, field)
        data = self._data[self._at : self._at + nbytes]
        if dtype.kind == "b" and data.translate(None, b"\0\1"):
            raise self._error("has booleans that are neither 0 nor 1", self._at, field)
        self._at += nbytes
        return np.frombuffer(data, dtype)

    def _strings(self, count: int, field: str) -> list[str]:
        """The hot loop of opening a file: vocabularies have 300,000 strings."""
        found: list[str] = []
        data, at, unpack = self._data, self._at, _U64.unpack_from
        ready = len(data) - 8
        for index in range(count):
            end = at + 8 + unpack(data, at)[0] if at <= ready else ready + 9
            if end > ready + 8:  # the window ends within this string
                self._at = at
                found.append(self._text(f"{field}[{index}]", STRING_LIMIT))
                data, at = self._data, self._at
                ready = len(data) - 8
                continue
            try:
                found.append(str(data[at + 8 : end], "utf-8"))
            except UnicodeDecodeError as error:
                raise self._error("is not UTF-8 text", at + 8 + error.start, f"{field}[{index}]") from None
            at = end
        self._at = at
        return found

    def _tensor(self, field: str) -> RawTensor:
        at = self._at
        name = self._name(field, 63)  # ggml's own limit
        count_at = self._at
        dimensions = self._u32(name)
        if not 1 <= dimensions <= 4:
            raise self._error(f"has {dimensions} dimensions; 1 to 4 are allowed", count_at, name)
        sizes = tuple(self._u64(name) for _ in range(dimensions))
        return RawTensor(name, sizes, self._u32(name), self._u64(name), at)
