"""The largest logits of a row, found by what a device has seen of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lacewing.backends.choice import top_k
from tests.maxima import maxima_of


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 9000), st.integers(1, 100), st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 6]), st.sampled_from([4, 8, 16])
)
def test_groups_lead_to_the_top_k_of_the_row(width: int, k: int, seed: int, decimals: int, lanes: int) -> None:
    """Equals go to the lowest id, wherever they stand."""
    rows = np.random.default_rng(seed).normal(0, 2, (2, width)).astype(np.float32).round(decimals)
    maxima = maxima_of(rows, lanes, 8)
    for index, row in enumerate(rows):
        expected = np.argsort(-row, kind="stable")[:k]
        assert np.array_equal(maxima.top_k(index, row, k), expected) and np.array_equal(top_k(row, k), expected)


@pytest.mark.parametrize("finite", [0, 1, 39, 40, 41])
def test_logits_that_are_minus_infinity(finite: int) -> None:
    rows = np.full((1, 5000), -np.inf, np.float32)
    places = np.random.default_rng(finite).permutation(5000)[:finite]
    rows[0, places] = np.arange(finite)
    assert np.array_equal(maxima_of(rows).top_k(0, rows[0], 40), np.argsort(-rows[0], kind="stable")[:40])


def test_of_some_of_the_rows() -> None:
    rows = np.random.default_rng(0).normal(0, 2, (5, 700)).astype(np.float32)
    some, maxima = [4, 1], maxima_of(rows)
    assert maxima.of(some).ids.tolist() == rows[some].argmax(axis=1).tolist()
    for index, each in enumerate(some):
        assert np.array_equal(maxima.of(some).top_k(index, rows[each], 9), top_k(rows[each], 9))
