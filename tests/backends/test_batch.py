"""Batches, and the choice among logits on the host."""

import math

import numpy as np
import pytest

from lacewing.backends.batch import Batch, StepLimits, Wanted, check_batch
from lacewing.backends.choice import allowed, candidates_of, log_sum_exp, top_k
from lacewing.errors import NumericError, OptionError

LIMITS = StepLimits(context=64, chunk=16, rows=3)


def test_parts():
    batch = Batch(np.zeros(6, int), np.array([2, 0, 0, 0, 1, 1]), np.array([9, 0, 1, 2, 5, 6]), np.array([0]))
    assert batch.parts == [(2, 0, 1), (0, 1, 3), (1, 4, 2)]
    assert Batch.of([7], 3, [0], row=2).parts == [(2, 0, 1)]
    assert check_batch(batch, 10, LIMITS, []).tokens.dtype == np.int32


def test_units_are_checked():
    batch = Batch.of([1, 2], 0, [1], row=1)
    with pytest.raises(OptionError, match=r"needs units of shape \(1, 3\)"):
        check_batch(batch, 10, LIMITS, [2])
    same = np.zeros((1, 3), np.int32)
    with pytest.raises(OptionError, match="another place"):
        check_batch(Batch(batch.tokens, batch.rows, batch.positions, batch.outputs, same, same), 10, LIMITS, [2])
    others = np.array([[0, 1, 0]], np.int32)  # rows that do not run may name the same unit twice
    check_batch(Batch(batch.tokens, batch.rows, batch.positions, batch.outputs, same, others), 10, LIMITS, [2])
    with pytest.raises(OptionError, match=r"unit 1 does not exist; the groups have \[1\]"):
        check_batch(Batch(batch.tokens, batch.rows, batch.positions, batch.outputs, same, others), 10, LIMITS, [1])


def test_embeddings_are_rows_of_the_width_of_the_model():
    batch = Batch(np.array([-1, 3]), np.zeros(2, int), np.arange(2), np.array([1]), embeddings=np.zeros((1, 8), np.float32))
    assert check_batch(batch, 10, LIMITS, [], 8).embeddings is not None
    for width in (0, 7):  # of a program that embeds nothing, and of another model
        with pytest.raises(OptionError, match=rf"must be float32 \(N, {width}\), not float32 \(1, 8\)"):
            check_batch(batch, 10, LIMITS, [], width)
    with pytest.raises(OptionError, match="token -1"):
        check_batch(Batch.of([-1], 0, [0]), 10, LIMITS, [])


@pytest.mark.parametrize("size", [1, 63, 64, 1000, 5000])
def test_top_k_by_sorting(size):
    rng = np.random.default_rng(size)
    logits = rng.integers(0, 50, size).astype(np.float32)  # many equals
    for k in (1, 2, 20, size):
        expected = sorted(range(size), key=lambda i: (-logits[i], i))[:k]
        assert top_k(logits, k).tolist() == expected


def test_candidates():
    row = np.array([0.5, 3.0, 3.0, -1.0, 2.0], np.float32)
    found = candidates_of(row, Wanted(3))
    assert (found.ids.tolist(), found.logits.tolist()) == ([1, 2, 4], [3.0, 3.0, 2.0])
    assert found.log_sum == pytest.approx(math.log(np.exp(row.astype(float)).sum()))
    mask = np.array([0b11001], np.uint32)
    masked = candidates_of(row, Wanted(5, mask, {3: 4.0}))
    assert (masked.ids.tolist(), masked.logits.tolist()) == ([3, 4, 0], [3.0, 2.0, 0.5])
    assert masked.log_sum == log_sum_exp(row)
    assert candidates_of(row, Wanted()).ids.tolist() == [1]
    with pytest.raises(OptionError, match="allows none"):
        candidates_of(row, Wanted(1, np.zeros(1, np.uint32)))
    with pytest.raises(OptionError, match="1 words"):
        allowed(np.zeros(2, np.uint32), 5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_row_that_is_not_finite(value):
    with pytest.raises(NumericError, match="NaN or infinite"):
        candidates_of(np.array([0, value, 1], np.float32), Wanted(2))


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 300])
def test_short_and_long_batches_are_looked_at_alike(count):
    limits = StepLimits(context=512, chunk=512, rows=300)
    for rows in (np.arange(count), np.zeros(count, int), np.arange(count) // 3):
        positions = np.concatenate([np.arange(each) for each in np.unique(rows, return_counts=True)[1]])
        batch = Batch(np.full(count, 9), rows, positions, np.array([count - 1]))
        firsts = [at for at in range(count) if not at or rows[at] != rows[at - 1]]
        expected = [(int(rows[at]), at, int((rows == rows[at]).sum())) for at in firsts]
        assert check_batch(batch, 10, limits, []).parts == batch.parts == expected
        for place in {0, count // 2, count - 1}:
            for value in (-1, 10):
                tokens = batch.tokens.copy()
                tokens[place] = value
                with pytest.raises(OptionError, match=rf"token {value} is out of range; there are 10"):
                    check_batch(Batch(tokens, rows, positions, batch.outputs), 10, limits, [])
