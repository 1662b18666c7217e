"""safetensors: files and folders of the official package, and the same verdict as the package on damaged headers.

Where we refuse what the package takes, on purpose (`documented_exception` knows them all):
names that occur twice, JSON nested more than 64 deep, structures written as arrays, a dtype written as an object.
A type that we cannot compute with (8-bit floats and smaller, complex) is an UnsupportedModelError, not a damaged file.
"""

from __future__ import annotations

import copy
import io
import json
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from lacewing.errors import LacewingError, ModelFormatError, UnsupportedModelError
from lacewing.formats import Checkpoint, open_checkpoint
from lacewing.formats import safetensors as ours
from lacewing.formats.read import mapped

DTYPES = [
    np.float64,
    np.float32,
    np.float16,
    np.int64,
    np.int32,
    np.int16,
    np.int8,
    np.uint64,
    np.uint32,
    np.uint16,
    np.uint8,
    np.bool_,
]
F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def packed(header: str | bytes, data: bytes = b"") -> bytes:
    raw = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(raw)) + raw + data


def one(data: bytes = b"1234", **changes: Any) -> bytes:
    return packed(json.dumps({"a": F32 | changes}), data)


def placed(begin: int, end: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end]}


def values(checkpoint: Checkpoint, name: str) -> np.ndarray:
    tensor = checkpoint.tensors[name]
    return tensor.quant.dequantise(mapped(tensor.ranges[0])).reshape(tensor.shape)


def test_files_of_the_package(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {f"t.{index}": random.integers(0, 2, (3, index, 2)[: index % 4]).astype(dtype) for index, dtype in enumerate(DTYPES)}
    path = tmp_path / "m.safetensors"
    save_file(arrays, path, metadata={"format": "np"})
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    checkpoint = open_checkpoint(path)
    assert checkpoint.format == "safetensors" and checkpoint.files == (path,)
    assert checkpoint.metadata["config.json"] == {"model_type": "llama"}
    assert checkpoint.tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        assert checkpoint.tensors[name].shape == array.shape
        assert (values(checkpoint, name) == array).all()


def test_bf16(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(one(np.array([0x3FC0, 0xC000], "<u2").tobytes(), dtype="BF16", shape=[2]))
    assert values(open_checkpoint(path), "a").tolist() == [1.5, -2.0]


@pytest.mark.parametrize("dtype", ["F8_E5M2", "F4", "C64"])
def test_types_for_later_are_refused_clearly(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(one(b"", dtype=dtype, shape=[0], data_offsets=[0, 0]))
    with pytest.raises(UnsupportedModelError, match=f"'a' has the type {dtype}"):
        open_checkpoint(path)


HEADERS: dict[str, bytes] = {
    "good": one(),
    "no tensors": packed("{}"),
    "spaces": packed(" \n{} \t"),
    "scalar": one(shape=[]),
    "unknown field": one(x=[1, {"y": 1e300}]),
    "metadata": packed('{"__metadata__": {"a": "b"}}'),
    "metadata null": packed('{"__metadata__": null}'),
    "metadata number": packed('{"__metadata__": {"a": 1}}'),
    "metadata list": packed('{"__metadata__": ["a"]}'),
    "empty name": packed(json.dumps({"": F32}), b"1234"),
    "control character in a name": packed(json.dumps({"a\n\0": F32}), b"1234"),
    "7 bytes": b"1234567",
    "empty file": b"",
    "length past the end": struct.pack("<Q", 3) + b"{}",
    "length over the limit": struct.pack("<Q", 100_000_001) + b"{}",
    "length 2^64-1": struct.pack("<Q", 2**64 - 1) + b"{}",
    "length 0": struct.pack("<Q", 0),
    "not UTF-8": packed(b'{"\xff": {}}'),
    "byte order mark": packed(b"\xef\xbb\xbf{}"),
    "list": packed("[]"),
    "null": packed("null"),
    "text behind": packed("{}x"),
    "NUL behind": packed(b"{}\0"),
    "NaN": one(x=float("nan")),
    "Infinity": one(x=float("inf")),
    "number too large": packed('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1e400}}', b"1234"),
    "integer of 60 digits": packed('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":%s}}' % ("9" * 60), b"1234"),
    "integer of 400 digits": packed('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":%s}}' % ("9" * 400), b"1234"),
    "minus zero": packed('{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}'),
    "half a surrogate pair": packed('{"a\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"1234"),
    "a surrogate pair": packed('{"a\\ud83d\\ude00":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"1234"),
    "escaped backslash": packed('{"a\\\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"1234"),
    "entry null": packed('{"a": null}'),
    "entry empty": packed('{"a": {}}'),
    "dtype unknown": one(dtype="Q9"),
    "dtype lower case": one(dtype="f32"),
    "dtype number": one(dtype=1),
    "shape float": one(shape=[1.0]),
    "shape true": one(shape=[True]),
    "shape negative": one(shape=[-1]),
    "shape text": one(shape="1"),
    "shape 2^64": one(b"", shape=[2**64], data_offsets=[0, 0]),
    "shape zero before huge": one(b"", shape=[0, 2**64 - 1, 2], data_offsets=[0, 0]),
    "shape huge before zero": one(b"", shape=[2**64 - 1, 2, 0], data_offsets=[0, 0]),
    "bytes overflow": one(b"", shape=[2**62], data_offsets=[0, 0]),
    "offsets swapped": one(data_offsets=[4, 0]),
    "offsets of three": one(data_offsets=[0, 4, 4]),
    "offsets of one": one(data_offsets=[4]),
    "offset 2^63": one(data_offsets=[2**63, 2**63 + 4]),
    "too few bytes": one(b"123"),
    "bytes behind": one(b"12345"),
    "gap": one(b"12345678", data_offsets=[4, 8]),
    "size differs": one(shape=[2]),
    "overlap": packed(json.dumps({"a": F32, "b": F32}), b"1234"),
    "half overlap": packed(json.dumps({"a": F32 | {"shape": [2], "data_offsets": [0, 8]}, "b": placed(4, 8)}), b"12345678"),
    "empty tensor between": packed(json.dumps({"b": placed(4, 4), "a": F32}), b"1234"),
    "empty tensor in the middle of another": packed(json.dumps({"b": placed(2, 2), "a": F32}), b"1234"),
    **{f"{dtype} of {count}": one(bytes(nbytes), dtype=dtype, shape=[count], data_offsets=[0, nbytes])
       for dtype in ("F4", "F6_E2M3", "F8_E4M3", "C64") for count in (1, 2, 4) for nbytes in (0, 1, 2, 3, 4, 8)},
}  # fmt: skip
EXCEPTIONS: dict[str, bytes] = {
    "name twice": packed(
        '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"1"
    ),
    "metadata key twice": packed('{"__metadata__":{"a":"1","a":"2"}}'),
    "nested 80 deep": packed('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":%s}}' % ("[" * 80 + "]" * 80), b"1234"),
    "entry as a list": packed('{"a":["F32",[1],[0,4]]}', b"1234"),
    "dtype as an object": one(dtype={"F32": None}),
}


def official_accepts(data: bytes) -> bool:
    try:
        safetensors.deserialize(data)
    except safetensors.SafetensorError:
        return False
    return True


def we_accept(path: Path, data: bytes) -> bool:
    """Whether we take the file for sound; a type for later counts as sound."""
    path.write_bytes(data)
    try:
        checkpoint = open_checkpoint(path)
    except UnsupportedModelError:
        return True
    except LacewingError as error:
        assert isinstance(error, ModelFormatError) and "\n" not in str(error) and str(path) in str(error)
        return False
    assert all(tensor.ranges[0].offset + tensor.nbytes <= len(data) for tensor in checkpoint.tensors.values())
    return True


@pytest.mark.parametrize("name", HEADERS)
def test_same_verdict_as_the_package(tmp_path: Path, name: str) -> None:
    assert we_accept(tmp_path / "m.safetensors", HEADERS[name]) == official_accepts(HEADERS[name])


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_documented_exceptions(tmp_path: Path, name: str) -> None:
    assert official_accepts(EXCEPTIONS[name]) and not we_accept(tmp_path / "m.safetensors", EXCEPTIONS[name])


def test_nesting_does_not_exhaust_the_stack(tmp_path: Path) -> None:
    for depth in (60, 200, 100_000):
        data = packed('{"a":' * depth + "1" + "}" * depth)
        assert not we_accept(tmp_path / "m.safetensors", data)


def documented_exception(data: bytes) -> bool:
    """Whether we refuse this on purpose although the package takes it."""
    twice = False

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        twice |= len(dict(items)) < len(items)
        return dict(items)

    document = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")], object_pairs_hook=pairs)
    entries = [entry for name, entry in document.items() if name != "__metadata__"]
    odd = any(isinstance(entry, list) or isinstance(entry.get("dtype"), dict) for entry in entries)
    return twice or odd


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A sound file of a few tensors with some changes to its entries, its text or its data."""
    entries: dict[str, Any] = {}
    end = 0
    for index in range(draw(st.integers(0, 4))):
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        dtype, size = draw(st.sampled_from([("F32", 4), ("BF16", 2), ("U8", 1), ("I64", 8), ("F8_E4M3", 1)]))
        nbytes = int(np.prod(shape)) * size
        entries[f"t{index}"] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + nbytes]}
        end += nbytes
    odd = st.sampled_from([0, 1, -1, end, 2**31, 2**32, 2**63, 2**64 - 1, 2**64, 1.0, True, None, "x", [], {}, [0, 4], ["F32"]])
    for _ in range(draw(st.integers(0, 2))):
        if entries:
            entry = entries[draw(st.sampled_from(sorted(entries)))]
            key = draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
            if isinstance(entry.get(key), list) and entry[key] and draw(st.booleans()):
                entry[key][draw(st.integers(0, len(entry[key]) - 1))] = draw(odd)
            elif draw(st.booleans()):
                entry[key] = copy.deepcopy(draw(odd))
            else:
                entry.pop(key, None)
    text = bytearray(json.dumps(entries).encode())
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(text) - 1))
        text[at : at + draw(st.integers(0, 2))] = draw(
            st.sampled_from([b"", b",", b"{", b"}", b'"', b"\\", b"0", b" ", b"\xff", b"-", b"e"])
        )
    length = len(text) + draw(st.sampled_from([0, 0, 0, 0, 1, -1, 2**31, 2**40]))
    data = bytes(max(0, end + draw(st.sampled_from([0, 0, 0, 0, 1, -1]))))
    return struct.pack("<Q", max(length, 0)) + bytes(text) + data


def check_agreement(path: Path, data: bytes) -> None:
    ours, official = we_accept(path, data), official_accepts(data)
    assert ours == official or (official and documented_exception(data))


@given(headers())  # more of them by `make slow`: test_fuzz.py
@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_agreement_on_mutants(tmp_path: Path, data: bytes) -> None:
    check_agreement(tmp_path / "m.safetensors", data)


def test_truncation_is_always_refused(tmp_path: Path) -> None:
    for cut in range(len(one())):
        assert not we_accept(tmp_path / "m.safetensors", one()[:cut])


def test_a_file_that_shrinks_while_its_header_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "open_regular", lambda _: (io.BytesIO(one()[:20]), len(one())))
    with pytest.raises(ModelFormatError, match="became shorter"):
        ours.read_header(tmp_path / "m.safetensors")


def test_too_many_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "TENSOR_LIMIT", 1)
    path = tmp_path / "m.safetensors"
    path.write_bytes(packed(json.dumps({"a": F32, "b": placed(4, 8)}), b"12345678"))
    with pytest.raises(ModelFormatError, match="has 2 tensors"):
        open_checkpoint(path)


def seconds_to_open(path: Path) -> float:
    started = time.process_time()
    try:
        open_checkpoint(path)
    except ModelFormatError as error:
        assert "values in its JSON" in str(error) or "is too large" in str(error)
    return time.process_time() - started


def test_headers_and_indexes_of_the_largest_models_open_fast(tmp_path: Path) -> None:
    """DeepSeek V3 has 90,000 tensors; each takes about 120 bytes of header."""
    names = [f"model.layers.{at // 1500}.mlp.experts.{at // 6 % 250}.{at % 6}_proj.weight_scale_inv" for at in range(90_000)]
    header = {name: placed(4 * at, 4 * at + 4) | {"shape": [1, 1]} for at, name in enumerate(names)}
    path = tmp_path / "one.safetensors"
    path.write_bytes(packed(json.dumps(header, separators=(",", ":")), bytes(4 * len(names))))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, path.name)}))
    assert seconds_to_open(tmp_path) < 10


@pytest.mark.parametrize(
    "make",  # 200 MB, which are not there while other tests run
    [
        lambda: b'{"a": [' + b"[]," * 20_000_000 + b"[]]}",
        lambda: b'{"a": [' + b"1," * 30_000_000 + b"1]}",
        lambda: b"{" + b",".join(b'"%x":0' % number for number in range(2_000_000)) + b"}",
        lambda: b'{"a": ' + b"1" * 60_000_000 + b"}",
    ],
    ids=["lists", "numbers", "names", "digits"],
)
def test_headers_that_ask_for_more_than_such_a_file_needs(tmp_path: Path, make: Callable[[], bytes]) -> None:
    path, start = tmp_path / "m.safetensors", make()
    path.write_bytes(packed(start))
    tracemalloc.start()
    try:
        assert seconds_to_open(path) < 8
        assert tracemalloc.get_traced_memory()[1] < 6 * len(start) + 2**27  # bytes
    finally:
        tracemalloc.stop()
