"""The largest logit of each row, as `argmax` finds it, and maxima of groups that tell the same top-k; whatever the threads."""

from __future__ import annotations

import ctypes
import itertools
from functools import cache

import numpy as np
import pytest

from lacewing.backends.cpu import native
from lacewing.backends.cpu.arguments import LARGEST, LARGEST_PART, STATE
from lacewing.backends.cpu.kernels.largest import PIECE
from lacewing.backends.cpu.kernels.simd.registers import LANES
from lacewing.backends.cpu.memory import aligned

SIZES = [1, 2, LANES - 1, LANES, LANES + 1, 5 * LANES, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 2 * LANES + 3, 9 * PIECE]
SIZES = [*dict.fromkeys(size for size in SIZES if size)]


@cache
def kernel():
    address = native.load(["largest.largest"])["largest.largest"]
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(address)


def found(rows: np.ndarray, threads: int, order: tuple[int, ...] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Ids, and the maxima of groups, by so many threads, which take their turns in `order`."""
    count, width = rows.shape
    memory = aligned(rows.nbytes + 64 * LANES).view(np.float32)
    memory[:] = np.nan  # what is behind the last row is none of it
    memory[: rows.size] = rows.reshape(-1)
    groups = -(-width // PIECE) * LANES
    tops, ids = np.full((count, groups), np.nan, np.float32), np.full(count, -2, np.int64)
    parts, counter = np.zeros((threads, count * LARGEST_PART), np.uint8), np.zeros(1, np.int64)
    arguments, state = np.zeros(len(LARGEST), np.int64), np.zeros(len(STATE), np.int64)
    arguments[:] = LARGEST._replace(
        counter=counter.ctypes.data, x=memory.ctypes.data, width=width, ids=ids.ctypes.data, tops=tops.ctypes.data,
        tops_bytes=4 * groups, parts=parts.ctypes.data, part_bytes=count * LARGEST_PART,
    )  # fmt: skip
    state[STATE.outputs // 8] = count
    for thread in order or range(threads):
        kernel()(arguments.ctypes.data, state.ctypes.data, thread, threads)
    return ids, tops


def argmax(rows: np.ndarray) -> np.ndarray:
    best = rows.argmax(axis=1)
    return np.where(np.isfinite(rows[np.arange(len(rows)), best]), best, -1)


def rows_of(random: np.random.Generator, count: int, width: int) -> np.ndarray:
    """Rows of many equals, of few, one of zeros of both signs, and one with a NaN or an infinity anywhere."""
    rows = random.normal(0, 3, (count, width)).astype(np.float32)
    rows[::3] = rows[::3].round(0)
    rows[1::5] = random.choice(np.array([0.0, -0.0, -np.inf], np.float32), (len(rows[1::5]), width))
    for row in rows[2::4]:
        row[random.integers(width)] = random.choice(np.array([np.nan, -np.nan, np.inf, -np.inf], np.float32))
    rows[4::7] = -np.inf
    return rows


@pytest.mark.parametrize("width", SIZES)
@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_the_ids_are_those_of_argmax(width: int, threads: int) -> None:
    random = np.random.default_rng(width * 8 + threads)
    for count in (1, 2, 7, 33):
        rows = rows_of(random, count, width)
        assert np.array_equal(found(rows, threads)[0], argmax(rows))


def test_equals_in_parts_of_several_threads_go_to_the_lowest_id_whoever_is_done_last() -> None:
    width = 4 * PIECE
    for places in itertools.combinations([3, PIECE - 1, PIECE, 2 * PIECE + 5, 4 * PIECE - 1], 2):
        rows = np.full((1, width), -1, np.float32)
        rows[0, list(places)] = 2
        for order in itertools.permutations(range(4)):
            assert found(rows, 4, order)[0].tolist() == [places[0]]


@pytest.mark.parametrize("width", SIZES)
def test_a_nan_anywhere_is_told_of_its_row_alone(width: int) -> None:
    for place in {0, width // 3, width // 2, width - 1}:
        rows = np.arange(3 * width, dtype=np.float32).reshape(3, width)
        rows[1, place] = np.nan
        assert found(rows, 3)[0].tolist() == [width - 1, -1, width - 1]


@pytest.mark.parametrize("width", SIZES)
def test_a_group_is_every_so_manyth_logit_of_a_piece(width: int) -> None:
    rows = np.random.default_rng(width).normal(0, 3, (3, width)).astype(np.float32)
    padded = np.full((3, -(-width // PIECE) * PIECE), -np.inf, np.float32)
    padded[:, :width] = rows
    expected = padded.reshape(3, -1, PIECE // LANES, LANES).max(axis=2).reshape(3, -1)
    for threads in (1, 2, 4):
        assert np.array_equal(found(rows, threads)[1], expected)
