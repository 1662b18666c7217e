"""Every quant that has planes of its own: rows come out exactly, products are the reference's."""

from __future__ import annotations

import numpy as np
import pytest

from lacewing.backends.webgpu.layouts import LAYOUTS
from lacewing.program.ops import Buffer, Embed, Linear
from tests.backends.cpu.single_ops import (
    Case,
    MappedWeight,
    dequantised,
    normal,
    one_batch,
    random_weight,
)
from tests.backends.webgpu.single_ops import FLOATS, LIMIT, VARIANTS, backend, error, run_step

CODED = tuple(name for name, layout in LAYOUTS.items() if not layout.floats)


def embedded(weight: MappedWeight, ids: range, variant: str = FLOATS) -> np.ndarray:
    """Rows of a weight as the device's embedding gives them; it has at least as many rows as columns."""
    rows, width = weight.shape
    out = Buffer("out", width).view()
    step = Case((Embed("w", out),), np.zeros((rows, 32), np.float32), out, {"w": weight}).step(backend(variant), 64)
    try:
        return run_step(step, one_batch(len(ids)), ids.start)[:, :width]
    finally:
        step.close()


def product_case(weight: MappedWeight, tokens: int = 3) -> Case:
    x, out = Buffer("x", weight.shape[1]).view(), Buffer("out", weight.shape[0]).view()
    return Case((Linear(x, ("w",), (out,)),), normal(max(8, tokens), weight.shape[1], seed=3), out, {"w": weight})


@pytest.mark.parametrize("quant", LAYOUTS)
def test_rows_are_exact(quant: str) -> None:
    weight = random_weight("w", quant, 259, 256, seed=1)
    values = dequantised(weight)
    for ids in (range(33), range(228, 259)):
        assert np.array_equal(embedded(weight, ids), values[ids])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("quant", LAYOUTS)
def test_products(quant: str, variant: str) -> None:
    weight = random_weight("w", quant, 37, 768, seed=2)
    assert error(product_case(weight), one_batch(3), variant) < LIMIT[variant]
