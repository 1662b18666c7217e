"""The variant whose tiles multiply float16 numbers: nearly as exact, and nothing overflows."""

from __future__ import annotations

import numpy as np
import pytest

from lacewing.program.ops import Buffer, Linear
from tests.backends.cpu.single_ops import Case, floats, nmse, normal, one_batch, random_weight
from tests.backends.webgpu.single_ops import backend, expected, run

HALF = "subgroups,half"


def case(quant: str, size: float = 1.0, width: int = 96) -> Case:
    y = Buffer("y", 70).view()
    weight = random_weight("w", quant, 70, width)
    return Case((Linear(Buffer("x", width).view(), ("w",), (y,)),), normal(40, width, seed=3) * np.float32(size), y, {"w": weight})


def test_it_is_there() -> None:
    assert backend(HALF).device.variant.half and not backend("subgroups").device.variant.half


@pytest.mark.parametrize("size", [1e-7, 1.0, 1e7])
@pytest.mark.parametrize(("quant", "width"), [("F16", 96), ("F16", 75), ("Q4_0", 96), ("Q6_K", 256)])
def test_products_of_many_tokens(quant: str, width: int, size: float) -> None:
    """Activations beyond float16's range too, and far below it."""
    one = case(quant, size, width)
    assert 1e-12 < nmse(run(one, one_batch(33), HALF), expected(one, one_batch(33))) < 1e-6


@pytest.mark.parametrize("quant", ["F32", "BF16"])
def test_more_precise_weights_stay_so(quant: str) -> None:
    one = case(quant)
    np.testing.assert_array_equal(run(one, one_batch(33), HALF), run(one, one_batch(33), "subgroups"))


def test_nan_and_infinity_go_their_way() -> None:
    x = normal(40, 64, seed=5)
    x[3, 7], x[5, 9] = np.nan, np.inf
    y = Buffer("y", 64).view()
    one = Case((Linear(Buffer("x", 64).view(), ("w",), (y,)),), x, y, {"w": floats("w", np.abs(normal(64, 64)) + 1, "F16")})
    found = run(one, one_batch(33), HALF)
    assert np.isnan(found[3]).all() and not np.isfinite(found[5]).any()  # the identity that shows it makes NaN of 0 * infinity
    others = np.delete(np.arange(33), [3, 5])
    assert np.isfinite(found[others]).all()
