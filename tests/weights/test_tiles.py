"""Tile order in memory: where each byte comes to be, what `data` and `parts` then give, and which weights get it."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lacewing.backends.weights import TileOrder
from lacewing.errors import ModelFormatError, OptionError
from lacewing.formats import read
from lacewing.formats.checkpoint import ByteRange, TensorInfo
from lacewing.quants import by_name
from lacewing.weights import WeightStore, store, tiles
from lacewing.weights import weight as weight_module
from lacewing.weights.tiles import Tiles
from tests.weights.stores import cancelled_at_every_look, contents

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


@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 4), st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=9))
def test_reordering_blocks_in_pieces(count: int, rows: int, blocks: int, pieces: list[int]) -> None:
    order = Tiles(rows, blocks * sum(pieces), sum(pieces), tuple(pieces))
    source = np.random.default_rng(0).integers(0, 256, count * order.nbytes, np.uint8)
    tiled, again = np.zeros_like(source), np.zeros_like(source)
    order.reorder(source, tiled, tiled=False)
    by_block, starts = source.reshape(count, rows, blocks, sum(pieces)), np.cumsum([0, *pieces]).tolist()
    expected = [
        by_block[tile, :, block, first:end]
        for tile in range(count)
        for block in range(blocks)
        for first, end in itertools.pairwise(starts)
    ]
    assert tiled.tobytes() == b"".join(piece.tobytes() for piece in expected)
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
    assert cancelled_at_every_look(weights) > 20
    assert weights["other.weight"].tiled is not None
    weights.set_residency("lazy")
    path.write_bytes(path.read_bytes()[:40_000])
    with pytest.raises(ModelFormatError):
        weights.set_residency("eager")
    assert weights.residency == "lazy"


def at_each_instruction(work: Callable[[], object], between: Callable[[int], object]) -> None:
    """`between`, as another thread could, after each instruction of the store that `work` comes to; it is told their number."""
    count = itertools.count()

    def trace(frame: FrameType, event: str, arg: object) -> object:
        if frame.f_code.co_filename not in (store.__file__, weight_module.__file__):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            between(next(count))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)


def test_whoever_looks_while_the_order_changes_gets_rows(path: Path) -> None:
    weights, seen = WeightStore(tensors(path)), set()
    weights.arrange(dict.fromkeys(weights, ORDER))
    weight, expected = weights["experts.weight"], contents(weights)["experts.weight"]

    def look(number: int) -> None:
        assert [part.tobytes() for part in weight.parts] == expected
        seen.add(weight.tiled is not None)

    for residency in ("eager", "lazy"):
        at_each_instruction(lambda residency=residency: weights.set_residency(residency), look)
    assert seen == {False, True}


@pytest.mark.parametrize("residency", ["lazy", "eager"])
def test_whoever_is_looking_when_the_order_changes_gets_rows(path: Path, residency: str) -> None:
    weights, found = WeightStore(tensors(path)), []
    weights.arrange(dict.fromkeys(weights, ORDER))
    expected = contents(weights)
    for name, when in itertools.product(("experts.weight", "other.weight"), range(200)):
        weights.set_residency("lazy" if residency == "eager" else "eager")

        def change(number: int, when: int = when) -> None:
            if number == when:
                weights.set_residency(residency)

        weight = weights[name]
        at_each_instruction(lambda weight=weight: found.append((weight.parts, weight.tiled)), change)
        parts, tiled = found.pop()
        assert [part.tobytes() for part in parts] == expected[name] and (tiled is None or tiled.size == weight.nbytes)
        if weights.residency != residency:
            break
    assert when > 20  # all of them were interrupted


def test_ctrl_c_at_any_moment(path: Path) -> None:
    """The weights are of one residency as a whole, and can be brought to the other."""
    weights, ends = WeightStore(tensors(path)), set()
    weights._lock = nullcontext()  # which this way of interrupting, unlike a signal, could leave locked
    before = contents(weights)
    weights.arrange(dict.fromkeys(weights, ORDER))

    def interrupted(wanted: str, when: int) -> bool:
        def press(number: int) -> None:
            if number == when:
                raise KeyboardInterrupt

        try:
            at_each_instruction(lambda: weights.set_residency(wanted), press)
        except KeyboardInterrupt:
            return True
        return False

    for wanted, other in (("eager", "lazy"), ("lazy", "eager")):
        for when in itertools.count():
            weights.set_residency(other)
            if not interrupted(wanted, when):
                break
            ends.add((wanted, weights.residency))
            assert {weight.tiled is not None for weight in weights.values()} == {weights.residency == "eager"}
            assert weights.anonymous_bytes == (weights.nbytes if weights.residency == "eager" else 0)
        assert contents(weights) == before
    assert ends == set(itertools.product(("eager", "lazy"), repeat=2))


@pytest.mark.parametrize("arranged", [False, True])
def test_a_file_that_changes_under_the_last_read(path: Path, arranged: bool) -> None:
    """What is read after the last look at a file could be of another one."""
    weights = WeightStore(tensors(path))
    weights.arrange(dict.fromkeys(weights, ORDER) if arranged else {})

    def change(what: str, done: int, total: int) -> None:
        if done == total:
            os.utime(path, ns=(1, 1))

    with pytest.raises(ModelFormatError, match="changed or was replaced"):
        weights.set_residency("eager", change)
    assert weights.residency == "lazy" and weights.anonymous_bytes == 0
    assert all(weight.tiled is None for weight in weights.values())


def test_parts_that_are_no_whole_tiles_stay_rows(path: Path) -> None:
    """A matrix in two places, the first of which ends in the middle of a tile."""
    places = (ByteRange(path, 512, 6 * 102), ByteRange(path, 9_000, 6 * 102))
    weights = WeightStore({"w": TensorInfo("w", (2, 6, 96), Q8_0, places)})
    before = contents(weights)
    weights.arrange({"w": ORDER})
    weights.set_residency("eager")
    assert weights["w"].tiled is None and contents(weights) == before
