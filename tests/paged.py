"""Runs steps without an engine: every row gets all its pages, in order, and units that take turns."""

from __future__ import annotations

from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from lacewing.backends.batch import Batch
from lacewing.backends.step import Step
from lacewing.program.states import Chunk, PagedState, Part, Window
from tests.maxima import check_maxima

S = TypeVar("S", bound=Step)


def with_pages(step: S, shuffle: int | None = None) -> S:
    """`shuffle`: the seed of an order of the pages; None: row after row."""
    rows, width = step.limits.rows, step.table_width
    for index, group in enumerate(step.groups):
        if not group.paged:
            step.grow(index, 2 * rows)
            continue
        step.grow(index, rows * width)
        pages = np.arange(rows * width) if shuffle is None else np.random.default_rng(shuffle).permutation(rows * width)
        for row in range(rows):
            step.put_table(index, row, 0, pages[row * width : (row + 1) * width])
    return step


def batch(step: Step, ids, rows, positions, outputs) -> Batch:
    """A row's two units take turns."""
    ids, rows, positions, outputs = (np.asarray(each, np.int32) for each in (ids, rows, positions, outputs))
    if not step.fixed:
        return Batch(ids, rows, positions, outputs)
    turns = _turns(step)
    into, out_of = (np.full((step.fixed, step.limits.rows), -1, np.int32) for _ in range(2))
    for row in np.unique(rows):
        first = int(positions[rows == row][0])
        turn = 0 if first == 0 else turns.get(int(row), 0)
        into[:, row], out_of[:, row] = (-1 if first == 0 else 2 * row + turn), 2 * row + 1 - turn
        turns[int(row)] = 1 - turn
    return Batch(ids, rows, positions, outputs, into, out_of)


_TURNS: WeakKeyDictionary[Step, dict[int, int]] = WeakKeyDictionary()


def _turns(step: Step) -> dict[int, int]:
    """Of each row which of its two units holds its state."""
    return _TURNS.setdefault(step, {})


def run(step: Step, ids, rows, positions, outputs) -> np.ndarray:
    """Logits float32 (R, V), as `Step.run`. What the device says of them is true, whatever the test is about."""
    found = step.run(batch(step, ids, rows, positions, outputs))
    if step.maxima is not None:
        check_maxima(step.maxima, found)
    return found


def run_row(step: Step, ids, position: int = 0, row: int = 0) -> np.ndarray:
    """Tokens of one row from a position on, the logits of all: float32 (T, V)."""
    count = len(ids)
    return run(step, ids, [row] * count, np.arange(position, position + count), np.arange(count))


def paged(
    heads: int, key_width: int, value_width: int, reach: Window | Chunk | None = None, dtype: str = "f16", latent: bool = False
) -> PagedState:
    """Keys and values of a layer."""
    keys = Part("keys", heads, key_width, dtype)
    return PagedState((keys,) if latent else (keys, Part("values", heads, value_width, dtype)), reach, latent)
