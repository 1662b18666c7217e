"""Attention over positions that an index chooses, on the CPU backend: against the reference, and bits."""

import numpy as np
import pytest

from tests.backends.cpu.checks import check_against_reference
from tests.backends.cpu.selection import dense, selection_case, spread, with_ties
from tests.backends.cpu.single_ops import Batch, one_batch, singly

LONG: list[Batch] = [([0] * n, list(range(s, s + n))) for s, n in ((0, 64), (64, 64), (128, 1), (129, 17), (146, 64), (210, 3))]


@pytest.mark.parametrize("dtype", ["f16", "f32"])
@pytest.mark.parametrize("most", [1, 5, 130])
def test_choices_of_short_and_long_contexts(most: int, dtype: str) -> None:
    """Over block borders, with few and many tokens; a token's bits do not depend on the others of its run."""
    case = selection_case(213, most).stored_as(dtype)
    found = check_against_reference(case, LONG, 5e-6, context=230)
    assert np.array_equal(case.run(singly(LONG), 3, context=230), found)
    assert np.array_equal(case.run(LONG, 2, context=230, shuffle=1), found)


def test_equal_scores_are_chosen_by_position() -> None:
    check_against_reference(with_ties(selection_case(213, 70, index=(3, 8))), LONG, 5e-6, context=230)


@pytest.mark.parametrize(("heads", "width", "value"), [(3, 40, 32), (33, 24, 20), (40, 16, 9)])
def test_up_to_the_number_that_is_chosen_it_is_dense_attention(heads: int, width: int, value: int) -> None:
    """Bit by bit, and beyond that it is not."""
    batches = [*LONG, *one_batch(1, 213)]
    case = selection_case(214, 213, heads, width, value)
    found, expected = case.run(batches, 2, context=230), dense(case).run(batches, 2, context=230)
    assert np.array_equal(found[:213], expected[:213])
    assert not np.array_equal(found[213], expected[213])


def test_several_rows_in_one_step() -> None:
    lengths = (9, 1, 30, 3)
    alone: list[Batch] = [([row] * n, list(range(n))) for row, n in enumerate(lengths)]
    mixed: list[Batch] = [([row for rows, _ in alone for row in rows], [place for _, places in alone for place in places])]
    case = selection_case(sum(lengths), 7, 8)
    found = check_against_reference(case, mixed, 5e-6, rows=4)
    assert np.array_equal(case.run(alone, rows=4), found)
    assert np.array_equal(case.run(singly(alone), 2, rows=4), found)


def test_a_broken_number_shows() -> None:
    """A key of the index that is no number is chosen by all that see it, and a query that is none chooses what is not refused."""
    case = selection_case(40, 4)
    select = case.ops[1]
    case.x[20, case.ops[0].index.start] = np.nan  # type: ignore[attr-defined]
    case.x[20, :40] = 50  # its keys draw attention
    case.x[30, select.q.start] = np.nan  # type: ignore[attr-defined]
    check_against_reference(case, one_batch(40), 5e-6)


def test_an_index_of_bytes() -> None:
    case = spread(selection_case(100, 12, width=64)).stored_as("q8_0")
    found = check_against_reference(case, one_batch(64) + one_batch(36, 64), 2e-5, context=128)
    assert np.array_equal(case.run(singly(one_batch(100)), 2, context=128), found)
