"""Tile order in memory: where each byte comes to be, what `data` and `parts` then give, and which weights get it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lacewing.backends.base import TileOrder
from lacewing.errors import Cancelled, ModelFormatError, OptionError
from lacewing.formats import read
from lacewing.formats.checkpoint import ByteRange, TensorInfo
from lacewing.quants import by_name
from lacewing.weights import WeightStore, tiles
from lacewing.weights.tiles import Tiles

Q8_0 = by_name("Q8_0")  # 34 bytes for 32 values


@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40))
def test_reordering_moves_every_byte_and_back(count: int, rows: int, row_bytes: int, group_bytes: int) -> None:
    order = Tiles(rows, row_bytes, group_bytes)
    source = np.random.default_rng(0).integers(0, 256, count * order.nbytes, np.uint8)
    tiled, again = np.zeros_like(source), np.zeros_like(source)
    order.reorder(source, tiled, tiled=False)
    by_row = source.reshape(count, rows, row_bytes)
    expected = [by_row[tile, :, first : first + group_bytes] for tile in range(count) for first in range(0, row_bytes, group_bytes)]
    assert tiled.tobytes() == b"".join(group.tobytes() for group in expected)
    order.reorder(tiled, again, tiled=True)
    assert np.array_equal(again, source)


ORDER = TileOrder(4, 64)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "data"
    file.write_bytes(np.random.default_rng(0).integers(0, 256, 60_000, np.uint8).tobytes())
    return file


def tensors(path: Path) -> dict[str, TensorInfo]:
    """A matrix, a tied name for it, experts in two places, and another matrix."""
    matrix, experts = (ByteRange(path, 512, 12 * 102),), (ByteRange(path, 20_003, 8 * 102), ByteRange(path, 9_000, 8 * 102))
    return {
        "token_embd.weight": TensorInfo("token_embd.weight", (12, 96), Q8_0, matrix),
        "output.weight": TensorInfo("output.weight", (12, 96), Q8_0, matrix),
        "experts.weight": TensorInfo("experts.weight", (2, 8, 96), Q8_0, experts),
        "other.weight": TensorInfo("other.weight", (300, 96), Q8_0, (ByteRange(path, 25_001, 300 * 102),)),
    }


def contents(weights: WeightStore) -> dict[str, list[bytes]]:
    return {name: [part.tobytes() for part in weight.parts] for name, weight in weights.items()}


@pytest.mark.parametrize("piece", [1, 1000, 2**21])
def test_eager_weights_in_tile_order(path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(tiles, "PIECE_BYTES", piece)
    weights, told = WeightStore(tensors(path)), []
    lazy, values = contents(weights), weights["experts.weight"].dequantise()
    weights.arrange(dict.fromkeys(weights, ORDER))
    assert all(weight.tiled is None for weight in weights.values())
    weights.set_residency("eager", lambda what, done, total: told.append(done))
    assert told[-1] == weights.nbytes == weights.anonymous_bytes
    for weight in weights.values():
        rows, tiled = weight.data, weight.tiled
        assert tiled is not None and not tiled.flags.writeable and tiled.ctypes.data % 64 == 0
        assert rows.size == tiled.size and not rows.flags.writeable and not np.array_equal(rows, tiled)
    head = weights["token_embd.weight"].tiled
    assert head is weights["output.weight"].tiled
    first_row = lazy["token_embd.weight"][0][:102]  # two of its three blocks, then the other three rows of the tile
    assert head[:68].tobytes() + head[4 * 68 : 4 * 68 + 34].tobytes() == first_row
    assert contents(weights) == lazy and np.array_equal(weights["experts.weight"].dequantise(), values, equal_nan=True)
    weights.set_residency("lazy")
    assert all(weight.tiled is None for weight in weights.values()) and contents(weights) == lazy


def test_only_what_was_asked_for_and_only_while_lazy(path: Path) -> None:
    weights = WeightStore(tensors(path))
    weights.arrange({"token_embd.weight": ORDER, "experts.weight": ORDER})  # the tied name wants its rows
    weights.set_residency("eager")
    assert [name for name, weight in weights.items() if weight.tiled is not None] == ["experts.weight"]
    with pytest.raises(OptionError, match="make them lazy first"):
        weights.arrange({})
    weights.close()
    assert weights["experts.weight"].tiled is None


def test_cancelled_or_failed_on_the_way_leaves_it_lazy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "CHUNK", 700)
    monkeypatch.setattr(tiles, "PIECE_BYTES", 2_000)
    weights = WeightStore(tensors(path))
    weights.arrange(dict.fromkeys(weights, ORDER))
    before = contents(weights)
    for looks in range(200):
        left = iter(range(looks))
        try:
            weights.set_residency("eager", cancelled=lambda left=left: next(left, None) is None)
        except Cancelled:
            assert weights.residency == "lazy" and weights.anonymous_bytes == 0 and contents(weights) == before
            continue
        break
    assert looks > 20 and weights["other.weight"].tiled is not None
    weights.set_residency("lazy")
    path.write_bytes(path.read_bytes()[:40_000])
    with pytest.raises(ModelFormatError):
        weights.set_residency("eager")
    assert weights.residency == "lazy"
