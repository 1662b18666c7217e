"""The gated delta rule on the CPU: the reference's numbers, and the same bits however tokens are shared out."""

import numpy as np
import pytest

from lacewing.errors import UnsupportedModelError
from lacewing.program.ops import Buffer, SplitHeads
from tests.backends.cpu.checks import check_against_reference
from tests.backends.cpu.single_ops import Case, normal, one_batch, singly
from tests.backends.delta import BATCHES, COUNT, SHAPES, delta_case


def expected(case: Case) -> np.ndarray:
    return case.run(BATCHES, None, 128, 3)


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_reference_in_the_same_bits_for_any_pieces(shape: tuple[int, ...], by_row: bool) -> None:
    case = delta_case(*shape, by_row=by_row)
    found = case.run(BATCHES, 1, 128, 3)
    np.testing.assert_allclose(found, expected(case), rtol=0, atol=2e-6 * np.abs(found).max())
    assert np.array_equal(case.run(singly(BATCHES), 3, 128, 3), found)
    assert np.array_equal(case.run(BATCHES, 5, 128, 3), found)


@pytest.mark.parametrize(("tiled", "log_rate"), [(True, False), (False, True)])
def test_order_of_heads_and_form_of_rates(tiled: bool, log_rate: bool) -> None:
    case = delta_case(6, 2, 16, 32, tiled, log_rate)
    found = case.run(BATCHES, 2, 128, 3)
    np.testing.assert_allclose(found, expected(case), rtol=0, atol=2e-6 * np.abs(found).max())


def test_a_nan_stays_in_its_sequence() -> None:
    case = delta_case(4, 2, 16, 32)
    case.x[1, 3] = np.nan
    found = case.run(BATCHES, 2, 128, 3)
    rows = np.concatenate([rows for rows, _ in BATCHES])
    broken = ~np.isfinite(found).all(axis=1)
    assert not broken[(rows != 0) | (np.arange(COUNT) < 1)].any() and broken[1]
    assert not broken[-2:].any()  # begun anew


def test_too_large_a_state_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="no room for states of 1024 x 1024"):
        delta_case(1, 1, 1024, 1024).run(BATCHES[:1], 1, 128, 3)


@pytest.mark.parametrize(("heads", "widths"), [(4, (32, 32)), (3, (5, 1, 17)), (1, (40,)), (2, (3, 64, 64, 2))])
def test_heads_taken_apart(heads: int, widths: tuple[int, ...]) -> None:
    x, out = Buffer("x", heads * sum(widths)), Buffer("out", heads * sum(widths))
    starts = heads * np.cumsum([0, *widths])
    outs = tuple(out.view(int(start), heads * width) for start, width in zip(starts, widths, strict=False))
    case = Case((SplitHeads(x.view(), outs, heads),), normal(21, x.width), out.view(), {})
    check_against_reference(case, one_batch(21))
    assert np.array_equal(case.run(one_batch(21), 2)[:, : widths[0]], case.x[:, : widths[0]])
