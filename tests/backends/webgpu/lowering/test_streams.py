"""Sums, scales and residual streams on WebGPU, against the reference."""

from __future__ import annotations

import pytest

from tests.backends.cpu.single_ops import one_batch
from tests.backends.stream_cases import KINDS, QUANTS, lookup_case, scaled_route, stream_case
from tests.backends.webgpu.single_ops import VARIANTS, error

BATCHES = [*one_batch(1), *one_batch(2, 1), *one_batch(17, 3)]


@pytest.mark.parametrize("width", [5, 300])
@pytest.mark.parametrize("kind", KINDS)
def test_streams(kind: str, width: int) -> None:
    assert error(stream_case(kind, width), BATCHES) < 1e-7


@pytest.mark.parametrize("variant", [VARIANTS[0], VARIANTS[-1]])
@pytest.mark.parametrize("kind", ["magnitude", "top k"])
def test_rows_that_are_reduced(kind: str, variant: str) -> None:
    assert error(stream_case(kind, 300), BATCHES, variant) < 1e-7


@pytest.mark.parametrize("quant", QUANTS)
def test_lookup(quant: str) -> None:
    """The host brings the rows."""
    assert error(lookup_case(quant), BATCHES) < 1e-7


@pytest.mark.parametrize("bias", [False, True])
def test_experts_with_a_factor_each(bias: bool) -> None:
    assert error(scaled_route(bias), BATCHES) < 1e-7
