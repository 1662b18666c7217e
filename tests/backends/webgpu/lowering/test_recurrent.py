"""The gated delta rule and heads taken apart, on WebGPU against the reference."""

from __future__ import annotations

import numpy as np
import pytest

from lacewing.program.ops import Buffer, SplitHeads
from tests.backends.cpu.single_ops import Case, normal, one_batch
from tests.backends.delta import BATCHES, SHAPES, delta_case
from tests.backends.webgpu.single_ops import error, run


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gated_delta(shape: tuple[int, int, int, int], by_row: bool) -> None:
    assert error(delta_case(*shape, by_row=by_row), BATCHES, context=128, rows=3) < 1e-11


@pytest.mark.parametrize(("tiled", "log_rate"), [(True, False), (False, True)])
def test_order_of_heads_and_form_of_rates(tiled: bool, log_rate: bool) -> None:
    assert error(delta_case(6, 2, 16, 32, tiled, log_rate), BATCHES, context=128, rows=3) < 1e-11


def test_a_nan_shows() -> None:
    case = delta_case(4, 2, 16, 32)
    case.x[1, 3] = np.nan
    found = run(case, BATCHES, context=128, rows=3)
    assert not np.isfinite(found[1]).all() and np.isfinite(found[[0, 5]]).all() and np.isfinite(found[-2:]).all()


@pytest.mark.parametrize(("heads", "widths"), [(4, (32, 32)), (3, (5, 1, 17))])
def test_heads_taken_apart(heads: int, widths: tuple[int, ...]) -> None:
    x, out = Buffer("x", heads * sum(widths)), Buffer("out", heads * sum(widths))
    starts = heads * np.cumsum([0, *widths])
    outs = tuple(out.view(int(start), heads * width) for start, width in zip(starts, widths, strict=False))
    case = Case((SplitHeads(x.view(), outs, heads),), normal(21, x.width), out.view(), {})
    assert error(case, one_batch(21)) == 0
