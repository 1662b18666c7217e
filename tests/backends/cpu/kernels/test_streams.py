"""Sums, scales and residual streams on the CPU, against the reference and against formulas."""

import numpy as np
import pytest

from tests.backends.cpu.checks import check_against_reference
from tests.backends.cpu.single_ops import Case, one_batch
from tests.backends.stream_cases import KINDS, QUANTS, STREAMS, WIDTHS, lookup_case, scaled_route, stream_case

BATCHES = [*one_batch(1), *one_batch(2, 1), *one_batch(17, 3)]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_streams(kind: str, width: int) -> None:
    check_against_reference(stream_case(kind, width), BATCHES)


@pytest.mark.parametrize("quant", QUANTS)
def test_lookup(quant: str) -> None:
    case = lookup_case(quant)
    check_against_reference(case, BATCHES)
    found = case.run(BATCHES)
    np.testing.assert_array_equal(found[13:], np.broadcast_to(found[3], (7, 512)))


@pytest.mark.parametrize("bias", [False, True])
def test_experts_with_a_factor_each(bias: bool) -> None:
    check_against_reference(scaled_route(bias), BATCHES)


def values(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Streams (20, S, D), router (20, S), new and other (20, D) of a case."""
    width = (case.x.shape[1] - STREAMS) // (STREAMS + 2)
    streams, router, new, other = np.split(case.x.astype(float), np.cumsum([STREAMS * width, STREAMS, width]), axis=1)
    return streams.reshape(20, STREAMS, width), router, new, other


def test_predict_and_correct_by_their_formulas() -> None:
    """As modeling_gemma3n.py of transformers has them."""
    case = stream_case("predict", 64)
    streams, router, new, _ = values(case)
    weight = case.weights["square"].data.view(np.float32).reshape(STREAMS * STREAMS, STREAMS)
    found = case.run(BATCHES)[:, : STREAMS * 64].reshape(20, STREAMS, 64)
    for t in range(20):
        all_coefs = (weight @ np.tanh(0.7 * router[t])).reshape(STREAMS, STREAMS).T
        np.testing.assert_allclose(found[t], (streams[t].T @ all_coefs).T + streams[t], atol=1e-4)
    case = stream_case("correct", 64)
    weight = case.weights["one each"].data.view(np.float32).reshape(STREAMS, STREAMS)
    found = case.run(BATCHES)[:, : STREAMS * 64].reshape(20, STREAMS, 64)
    for t in range(20):
        coefs = weight @ np.tanh(0.7 * router[t]) + 1
        np.testing.assert_allclose(found[t], streams[t] + np.outer(coefs, new[t] - streams[t, 1]), atol=1e-4)


def test_magnitude_and_top_k_by_their_formulas() -> None:
    _, _, new, other = values(stream_case("magnitude", 64))
    found = stream_case("magnitude", 64).run(BATCHES)[:, -128:-64]
    expected = new * np.sqrt((other**2).mean(1) / np.maximum((new**2).mean(1), 1e-5))[:, None]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    found = stream_case("top k", 64).run(BATCHES)[:, -128:-64]
    least = new.mean(1) + 0.4 * new.std(1)
    np.testing.assert_allclose(found, np.maximum(new - least[:, None], 0), atol=1e-4)
