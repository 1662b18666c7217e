"""GGUF files built field by field for tests; every field's place is known, so that a test can change just that one."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

TYPES = {
    "u8": 0,
    "i8": 1,
    "u16": 2,
    "i16": 3,
    "u32": 4,
    "i32": 5,
    "f32": 6,
    "bool": 7,
    "str": 8,
    "arr": 9,
    "u64": 10,
    "i64": 11,
    "f64": 12,
}
_FORMS = {
    "u8": "B",
    "i8": "b",
    "u16": "H",
    "i16": "h",
    "u32": "I",
    "i32": "i",
    "f32": "f",
    "bool": "B",
    "u64": "Q",
    "i64": "q",
    "f64": "d",
}
F32, I8, I64 = 0, 24, 27


@dataclass(frozen=True)
class Mark:
    """A field that a hostile writer would set: what it is, where, and its bytes (4 or 8)."""

    kind: str
    at: int
    size: int


@dataclass(frozen=True)
class Tensor:
    name: str | bytes
    sizes: tuple[int, ...] = (32,)
    ggml_id: int = I8
    offset: int | None = None  # None: where it belongs
    nbytes: int = 32
    dimensions: int | None = None


@dataclass
class Built:
    data: bytearray = field(default_factory=bytearray)
    marks: list[Mark] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)  # boundaries: after each header field, after each tensor

    def number(self, form: str, value: int | float, kind: str | None = None) -> None:
        raw = struct.pack("<" + form, value) if form not in "QqIi" or value >= 0 else struct.pack("<" + form.lower(), value)
        if kind is not None:
            self.marks.append(Mark(kind, len(self.data), len(raw)))
        self.data += raw
        self.ends.append(len(self.data))

    def text(self, value: str | bytes, length: int | None = None) -> None:
        raw = value.encode() if isinstance(value, str) else value
        self.number("Q", len(raw) if length is None else length, "length")
        self.data += raw
        self.ends.append(len(self.data))

    def value(self, kind: str, value: Any) -> None:
        """`kind` such as "u32", "str", "arr:str" or "arr:arr:u8"."""
        first, _, inner = kind.partition(":")
        if first == "arr":
            self.number("I", TYPES[inner.partition(":")[0]], "type")
            self.number("Q", len(value), "count")
            for item in value:
                self.value(inner, item)
        elif first == "str":
            self.text(value)
        else:
            self.number(_FORMS[first], value)


def build(keys: list[tuple[str | bytes, str, Any]], tensors: list[Tensor], *, magic: bytes = b"GGUF", version: int = 3,
          tensor_count: int | None = None, key_count: int | None = None, alignment: int = 32, padding: int | None = None,
          short: int = 0) -> Built:  # fmt: skip
    """A file; `alignment` is what the writer uses, whatever the keys say, `short` cuts the end."""
    out = Built(bytearray(magic))
    out.number("I", version, "version")
    out.number("Q", len(tensors) if tensor_count is None else tensor_count, "count")
    out.number("Q", len(keys) if key_count is None else key_count, "count")
    for name, kind, value in keys:
        out.text(name)
        out.number("I", TYPES[kind.partition(":")[0]], "type")
        out.value(kind, value)
    offset = 0
    for tensor in tensors:
        out.text(tensor.name)
        out.number("I", len(tensor.sizes) if tensor.dimensions is None else tensor.dimensions, "count")
        for size in tensor.sizes:
            out.number("Q", size, "size")
        out.number("I", tensor.ggml_id, "type")
        out.number("Q", offset if tensor.offset is None else tensor.offset, "offset")
        offset += -(-tensor.nbytes // alignment) * alignment
    out.data += bytes(-len(out.data) % (alignment if padding is None else padding))
    for index, tensor in enumerate(tensors):
        last = index == len(tensors) - 1
        out.data += bytes(index + 1 for _ in range(tensor.nbytes))
        out.ends.append(len(out.data))
        out.data += b"" if last else bytes(-tensor.nbytes % alignment)
    del out.data[len(out.data) - short :]
    return out


KEYS: list[tuple[str | bytes, str, Any]] = [
    ("general.architecture", "str", "llama"),
    ("a.u8", "u8", 200),
    ("a.i8", "i8", -100),
    ("a.u16", "u16", 60000),
    ("a.i16", "i16", -30000),
    ("a.u32", "u32", 4_000_000_000),
    ("a.i32", "i32", -2_000_000_000),
    ("a.f32", "f32", 1.5),
    ("a.bool", "bool", 1),
    ("a.u64", "u64", 2**64 - 1),
    ("a.i64", "i64", -(2**63)),
    ("a.f64", "f64", 0.1),
    ("tokens", "arr:str", ["<s>", "", "Ġab", "漢字"]),
    ("scores", "arr:f32", [0.0, -1.0, 2.5, 3.0]),
    ("flags", "arr:bool", [0, 1, 1]),
    ("nested", "arr:arr:u16", [[1, 2], [], [3]]),
]
TENSORS = [
    Tensor("token_embd.weight", (8, 4), F32, nbytes=128),
    Tensor("blk.0.attn_q.weight", (32, 2), 8, nbytes=68),
    Tensor("blk.0.norm.weight", (5,), F32, nbytes=20),
]


def valid() -> Built:
    """A file with every metadata type and tensors of several formats; no padding at its end."""
    return build(KEYS, TENSORS)
