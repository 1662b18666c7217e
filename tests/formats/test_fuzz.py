"""The nightly tier: many mutated files by a plain random generator, which makes thousands a second.

LACEWING_FUZZ sets how many (default 100,000); a failure prints the seed of its file, `mutant(seed)` makes it again.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from .gguf_bytes import F32, KEYS, TENSORS, Built, Tensor, build
from .test_gguf_hostile import extremes, open_or_refuse, patched
from .test_safetensors import check_agreement, packed

COUNT = int(os.environ.get("LACEWING_FUZZ", "100000"))
SCRATCH = Path("/dev/shm") if Path("/dev/shm").is_dir() else None


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A file in memory where there is such a place."""
    return (SCRATCH or tmp_path) / f"lacewing-fuzz-{os.getpid()}"


def mutant(seed: int) -> bytes:
    """A GGUF file of some of the usual keys and tensors with one to four changes, most of them to whole fields."""
    rng = random.Random(seed)
    keys = rng.sample(KEYS, rng.randint(0, len(KEYS)))
    if rng.random() < 0.3:
        keys.append(("general.alignment", "u32", rng.choice([0, 1, 2, 8, 32, 64, 3, 2**16, 2**31])))
    tensors = rng.sample(TENSORS, rng.randint(0, 3))
    tensors += [
        Tensor(f"t{index}", (rng.choice([0, 1, 32, 256]),), rng.randint(0, 45), nbytes=32) for index in range(rng.randint(0, 2))
    ]
    built = build(keys, tensors, version=rng.choice([2, 3]))
    for _ in range(rng.randint(1, 4)):
        change(rng, built)
    return bytes(built.data)


def change(rng: random.Random, built: Built) -> None:
    size = len(built.data)
    at = rng.randrange(size) if size else 0
    what = rng.random()
    if what < 0.6:
        mark = rng.choice(built.marks)
        values = [rng.choice(extremes(mark.size, size)), rng.randint(0, 40), rng.getrandbits(8 * mark.size), F32]
        patched(built, mark.at, rng.choice(values), mark.size)
    elif what < 0.8 and size:
        built.data[at] = rng.getrandbits(8)
    elif what < 0.9:
        built.data[at : at + rng.randint(0, 30)] = rng.randbytes(rng.randint(0, 30))
    else:
        del built.data[at:]


@pytest.mark.slow
def test_many_gguf_mutants(scratch: Path) -> None:
    opened = 0
    try:
        for seed in range(COUNT):
            try:
                opened += open_or_refuse(scratch, mutant(seed)) is not None
            except BaseException:
                print(f"seed {seed}")
                raise
    finally:
        scratch.unlink(missing_ok=True)
    assert 0.02 * COUNT < opened < 0.6 * COUNT  # both verdicts are exercised


ODD = [0, 1, -1, 4, 2**31, 2**32, 2**63, 2**64 - 1, 2**64, 1.0, 1e300, True, None, "F32", "U8", "F4", [], {}, [0, 4], ["F32"]]
PIECES = [
    b"",
    b",",
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"\\",
    b"0",
    b" ",
    b"\xff",
    b"-",
    b"e",
    b"\\ud800",
    b"\\u0041",
    b"9" * 30,
    b"\n",
    b"\0",
    b"true",
]


def header_mutant(seed: int) -> bytes:
    """A safetensors file of a few tensors with changes to its entries, its text, its length or its data."""
    rng = random.Random(seed)
    entries: dict[str, object] = {}
    end = 0
    for index in range(rng.randint(0, 4)):
        shape = [rng.randint(0, 3) for _ in range(rng.randint(0, 3))]
        dtype, bits = rng.choice([("F32", 32), ("BF16", 16), ("U8", 8), ("I64", 64), ("F8_E4M3", 8), ("F4", 4), ("C64", 64)])
        elements = 1
        for length in shape:
            elements *= length
        nbytes = elements * bits // 8
        entries[f"t{index}"] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + nbytes]}
        end += nbytes
    if rng.random() < 0.3:
        entries["__metadata__"] = rng.choice([{"a": "b"}, {"a": 1}, None, [], {}, "x"])
    for entry in entries.values():
        if isinstance(entry, dict) and rng.random() < 0.2:
            key = rng.choice(["dtype", "shape", "data_offsets", "more"])
            inner = entry.get(key)
            if isinstance(inner, list) and inner and rng.random() < 0.7:
                inner[rng.randrange(len(inner))] = rng.choice(ODD)
            else:
                entry[key] = rng.choice(ODD)
    text = bytearray(json.dumps(entries).encode())
    if rng.random() < 0.4:
        at = rng.randrange(len(text))
        text[at : at + rng.randint(0, 2)] = rng.choice(PIECES)
    data = bytearray(packed(bytes(text), bytes(max(0, end + rng.choice([0] * 8 + [1, -1])))))
    if rng.random() < 0.1:
        data[rng.randrange(8)] = rng.getrandbits(8)
    return bytes(data)


@pytest.mark.slow
def test_many_safetensors_mutants(scratch: Path) -> None:
    path = scratch.with_suffix(".safetensors")
    try:
        for seed in range(COUNT):
            try:
                check_agreement(path, header_mutant(seed))
            except BaseException:
                print(f"seed {seed}")
                raise
    finally:
        path.unlink(missing_ok=True)
