"""Malformed GGUF files: each is refused with a ModelFormatError that names file and field, and nothing else happens."""

from __future__ import annotations

import io
import os
import random
import re
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lacewing.errors import LacewingError, ModelFormatError
from lacewing.formats import Checkpoint, open_checkpoint
from lacewing.formats.gguf_header import HeaderReader

from .gguf_bytes import F32, I8, I64, KEYS, TENSORS, Built, Mark, Tensor, build, valid

BIG = 2**63 - 64
ONE = [Tensor("my_tensor")]
TWO = [Tensor("my_tensor_0"), Tensor("my_tensor_1")]

# The 26 malformed kinds of llama.cpp's tests/test-gguf.cpp, under its names, and a word that the refusal must have.
KINDS: dict[str, tuple[Callable[[], Built], str]] = {
    "HEADER_BAD_MAGIC": (lambda: build(KEYS, TENSORS, magic=b"FUGG"), "magic"),
    "HEADER_BAD_VERSION_0": (lambda: build(KEYS, TENSORS, version=0), "version"),
    "HEADER_BAD_VERSION_1": (lambda: build(KEYS, TENSORS, version=1), "version"),
    "HEADER_BAD_VERSION_FUTURE": (lambda: build(KEYS, TENSORS, version=4), "version"),
    "HEADER_BAD_N_TENSORS": (lambda: build([], [], tensor_count=-1), "tensor count"),
    "HEADER_BAD_N_KV": (lambda: build([], [], key_count=-1), "key count"),
    "KV_BAD_KEY_SIZE": (lambda: patched(build(KEYS, []), 24, 2**64 - 1), "key 0"),
    "KV_EMPTY_KEY": (lambda: build([("", "u8", 1)], []), "empty"),
    "KV_BAD_TYPE": (lambda: patched(build([("my_key_0", "u8", 1)], []), 24 + 8 + 8, 13, 4), "value type 13"),
    "KV_DUPLICATE_KEY": (lambda: build([("my_key", "u8", 1), ("my_key", "str", "a")], []), "my_key"),
    "KV_BAD_ALIGN": (lambda: build([("general.alignment", "u32", 13)], [], alignment=1), "general.alignment"),
    "KV_WRONG_TYPE_ALIGN": (lambda: build([("general.alignment", "i32", 32)], []), "general.alignment"),
    "TENSORS_BAD_NAME_SIZE": (lambda: build([], [Tensor("a" * 64)]), "string of 64 bytes"),
    "TENSORS_BAD_N_DIMS": (lambda: build([], [Tensor("my_tensor", dimensions=5)]), "5 dimensions"),
    "TENSORS_BAD_SHAPE": (lambda: build([], [Tensor("my_tensor", (-1,))]), "my_tensor"),
    "TENSORS_NE_TOO_BIG": (lambda: build([], [Tensor("my_tensor", (4 * (2**31 - 1),) * 2)]), "my_tensor"),
    "TENSORS_NBYTES_TOO_BIG": (lambda: build([], [Tensor("my_tensor", (1_533_819_840,) * 2, I64)]), "my_tensor"),
    "TENSORS_BAD_TYPE": (lambda: build([], [Tensor("my_tensor", ggml_id=43)]), "type 43"),
    "TENSORS_BAD_OFFSET": (lambda: build([], [Tensor("my_tensor", offset=-1)]), "my_tensor"),
    "TENSORS_DUPLICATE_NAME": (lambda: build([], ONE * 2), "twice"),
    "TENSORS_BAD_ALIGN": (lambda: build([("general.alignment", "u32", 13)], ONE, alignment=13), "general.alignment"),
    "TENSORS_INCONSISTENT_ALIGN": (lambda: build([], [Tensor("a", (33,), nbytes=33), Tensor("b")], alignment=1), "alignment"),
    "DATA_NOT_ENOUGH_DATA": (lambda: build(KEYS, TENSORS, short=1), "1 bytes after the end"),
    "DATA_BAD_ALIGN": (lambda: build([("general.alignment", "u32", 13)], TWO, alignment=13), "general.alignment"),
    "DATA_INCONSISTENT_ALIGN": (lambda: build([("general.alignment", "u32", 64)], TWO), "alignment"),
    "DATA_MEM_SIZE_OVERFLOW": (lambda: build([], [Tensor("my_tensor", (BIG,)), Tensor("b", (BIG,))]), "my_tensor"),
}
OTHERS: dict[str, tuple[Callable[[], Built], str]] = {
    "big-endian": (lambda: build([], [], version=3 << 24), "big-endian"),
    "no dimensions": (lambda: build([], [Tensor("t", ())]), "0 dimensions"),
    "row is no whole block": (lambda: build([], [Tensor("t", (33,), 8)]), "33 values"),
    "removed type": (lambda: build([], [Tensor("t", (32,), 4)]), "removed"),
    "activation type": (lambda: build([], [Tensor("t", (32,), 9)]), "activations"),
    "product of sizes overflows": (lambda: build([], [Tensor("t", (2**32, 2**32, 2**32, 2**32), F32)]), "shape"),
    "zero hides a huge size": (lambda: build([], [Tensor("t", (0, 2**63))]), "shape"),
    "tensors overlap": (lambda: build([], [Tensor("a", (64,), nbytes=64), Tensor("b", offset=32)]), "shares bytes"),
    "tensors at one place": (lambda: build([], [Tensor("a"), Tensor("b", offset=0)]), "shares bytes"),
    "empty tensor far away": (lambda: build([], [Tensor("a", (0,), offset=2**60, nbytes=0)]), "after the end"),
    "boolean of 2": (lambda: build([("b", "bool", 2)], []), "boolean"),
    "boolean array of 2": (lambda: build([("b", "arr:bool", [0, 2])], []), "boolean"),
    "key with a line end": (lambda: build([("a\nb", "u8", 1)], []), "control"),
    "key not ASCII": (lambda: build([("schlüssel", "u8", 1)], []), "ASCII"),
    "key not UTF-8": (lambda: build([(b"\xff\xfe", "u8", 1)], []), "UTF-8"),
    "key too long": (lambda: build([("k" * 65536, "u8", 1)], []), "65536"),
    "string not UTF-8": (lambda: build([("a.name", "str", b"ab\xc3")], []), "a.name"),
    "token not UTF-8": (lambda: build([("tokens", "arr:str", ["a"] * 70 + [b"\xed\xa0\x80", "b"])], []), r"tokens\[70\]"),
    "tensor name empty": (lambda: build([], [Tensor("")]), "empty"),
    "tensor name with NUL": (lambda: build([], [Tensor("a\0b")]), "control"),
    "alignment 0": (lambda: build([("general.alignment", "u32", 0)], []), "general.alignment"),
    "alignment 2^31": (lambda: build([("general.alignment", "u32", 2**31)], []), "general.alignment"),
    "alignment array": (lambda: build([("general.alignment", "arr:u32", [32])], []), "general.alignment"),
    "array of type 13": (lambda: patched(build([("k", "arr:u8", [1])], []), 24 + 9 + 4, 13, 4), "element type 13"),
    "nested too deep": (lambda: build([("k", "arr:arr:arr:arr:u8", [[[[1]]]])], []), "nested"),
    "huge string count": (lambda: patched(build([("k", "arr:str", ["a"])], []), 24 + 9 + 8, 2**61), "too many strings"),
    "string array longer than the file": (lambda: patched(build([("k", "arr:str", ["a"])], []), 24 + 9 + 8, 1000), "truncated"),
    "too many tensors": (lambda: Built(build([], [], tensor_count=2**18).data + bytes(33 * 2**18)), "at most 131072"),
}  # fmt: skip


def patched(built: Built, at: int, value: int, size: int = 8) -> Built:
    """The file with one number replaced."""
    built.data[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")
    return built


def refusal(path: Path, data: bytes | bytearray) -> ModelFormatError:
    path.write_bytes(data)
    with pytest.raises(ModelFormatError) as caught:
        open_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < 600
    return caught.value


def open_or_refuse(path: Path, data: bytes | bytearray) -> Checkpoint | None:
    """Open hostile bytes: a clean refusal, or a checkpoint whose every promise holds; never anything else, never slow."""
    path.write_bytes(data)
    start = time.process_time()  # it waits for nothing, but others may have the cores
    try:
        checkpoint = open_checkpoint(path)
    except LacewingError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return None
    finally:
        assert time.process_time() - start < 2
    end = 0
    for tensor in sorted(checkpoint.tensors.values(), key=lambda tensor: (tensor.ranges[0].offset, tensor.nbytes)):
        place = tensor.ranges[0]
        assert place.nbytes == tensor.elements // tensor.quant.block_elements * tensor.quant.block_bytes
        assert not place.nbytes or (end <= place.offset and place.offset + place.nbytes <= len(data))
        end = max(end, place.offset + place.nbytes) if place.nbytes else end
    return checkpoint


def test_there_are_26_named_kinds() -> None:
    assert len(KINDS) == 26


@pytest.mark.parametrize("name", [*KINDS, *OTHERS])
def test_named_kind_is_refused(tmp_path: Path, name: str) -> None:
    make, word = {**KINDS, **OTHERS}[name]
    assert re.search(word, str(refusal(tmp_path / "a.gguf", make().data)))


@pytest.mark.parametrize("built", [
    build([], []), build(KEYS, []), build([], TWO), build([("general.alignment", "u32", 1)], TWO, alignment=1),
    build([], [Tensor("my_tensor", (32, 0), nbytes=0)]), build([], [Tensor("a" * 63)]),
], ids=["HEADER_EMPTY", "KV_SUCCESS", "DATA_SUCCESS", "DATA_CUSTOM_ALIGN", "TENSORS_ZERO_DIM", "longest name"])  # fmt: skip
def test_the_well_formed_kinds_open(tmp_path: Path, built: Built) -> None:
    assert open_or_refuse(tmp_path / "a.gguf", built.data) is not None


def extremes(size: int, file_size: int) -> list[int]:
    values = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, file_size - 1, file_size, file_size + 1]
    return sorted({value % 2 ** (8 * size) for value in values})


def test_every_number_at_its_extremes(tmp_path: Path) -> None:
    """Each length, count, type, size and offset of a valid file, one at a time."""
    refused = cases = 0
    for index, mark in enumerate(valid().marks):
        for value in extremes(mark.size, len(valid().data)):
            data = patched(valid(), mark.at, value, mark.size).data
            cases += 1
            refused += open_or_refuse(tmp_path / f"{index}.gguf", data) is None
    assert cases > 500 and refused > 0.85 * cases  # a 0 or 1 may make a shorter, still valid file


def test_huge_counts_allocate_nothing(tmp_path: Path) -> None:
    files = []
    for mark in valid().marks:
        for value in (2**20, 2**31, 2**40, 2**64 - 1):
            files.append(patched(valid(), mark.at, value, mark.size).data)
    tracemalloc.start()
    try:
        for data in files:
            open_or_refuse(tmp_path / "a.gguf", data)
        assert tracemalloc.get_traced_memory()[1] < 2 * 2**20 + sum(map(len, files))
    finally:
        tracemalloc.stop()


def test_header_limits_of_a_huge_file(tmp_path: Path) -> None:
    """A sparse file stands behind counts that fit it; the header limit stops them."""
    path = tmp_path / "sparse.gguf"
    path.write_bytes(patched(build([("k", "arr:u8", [])], []), 24 + 9 + 8, 2**33).data)
    os.truncate(path, 2**34)
    tracemalloc.start()
    try:
        with pytest.raises(ModelFormatError, match="header is longer than"):
            open_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


def test_a_file_that_shrinks_while_its_header_is_read() -> None:
    data = valid().data
    for cut in range(0, 700, 50):
        with pytest.raises(ModelFormatError, match=r"became shorter|needs"):
            HeaderReader(io.BytesIO(data[:cut]), len(data), Path("a.gguf")).read()


def test_truncation_is_always_refused(tmp_path: Path) -> None:
    built = valid()
    whole = len(built.data)
    cuts = {0} | {end + step for end in built.ends for step in (-1, 0, 1)} | set(random.Random(0).sample(range(whole), 200))
    path = tmp_path / "a.gguf"
    for cut in sorted(cut for cut in cuts if 0 <= cut < whole):
        refusal(path, built.data[:cut])
    assert open_or_refuse(path, built.data) is not None


def test_missing_bytes_are_named(tmp_path: Path) -> None:
    assert "7 bytes after the end of the file" in str(refusal(tmp_path / "a.gguf", build(KEYS, TENSORS, short=7).data))
    assert refusal(tmp_path / "b.gguf", b"GGUF\x03\0\0").offset == 4


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """A valid file of random keys and tensors, then a few typed changes."""
    kinds = st.sampled_from(["u8", "u32", "i64", "f32", "bool", "str", "arr:u8", "arr:str", "arr:arr:u8"])
    keys: list[tuple[str | bytes, str, Any]] = []
    for index in range(draw(st.integers(0, 4))):
        kind = draw(kinds)
        scalar = draw(st.integers(0, 1)) if not kind.endswith("str") else draw(st.text(max_size=5))
        keys.append((f"key.{index}", kind, [[scalar]] if kind.count("arr") == 2 else [scalar] * 2 if "arr" in kind else scalar))
    sizes = st.lists(st.integers(1, 3), max_size=3).map(tuple)
    tensors = []
    for index in range(draw(st.integers(0, 3))):
        rows = draw(sizes)
        count = 32
        for size in rows:
            count *= size
        tensors.append(Tensor(f"t.{index}", (32, *rows), I8, nbytes=count))
    built = build(keys, tensors)
    for _ in range(draw(st.integers(1, 3))):
        mutate(draw, built)
    return bytes(built.data)


def mutate(draw: st.DrawFn, built: Built) -> None:
    what = draw(st.sampled_from(["mark", "mark", "mark", "byte", "cut", "insert"]))
    at = draw(st.integers(0, max(len(built.data) - 1, 0)))
    if what == "mark":
        mark: Mark = draw(st.sampled_from(built.marks))
        near = st.integers(0, 40) | st.integers(0, 2 ** (8 * mark.size) - 1)
        patched(built, mark.at, draw(st.sampled_from(extremes(mark.size, len(built.data))) | near), mark.size)
    elif what == "byte" and built.data:
        built.data[at] = draw(st.integers(0, 255))
    elif what == "cut":
        del built.data[at:]
    else:
        built.data[at:at] = draw(st.binary(max_size=16))


@given(mutants())  # more of them by `make slow`: test_fuzz.py
@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutants(tmp_path: Path, data: bytes) -> None:
    open_or_refuse(tmp_path / "mutant.gguf", data)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_behind_the_magic(tmp_path: Path, noise: bytes) -> None:
    open_or_refuse(tmp_path / "noise.gguf", b"GGUF\x03\0\0\0" + noise)
