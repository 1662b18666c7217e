"""Every quant that has planes of its own: rows come out exactly, products are the reference's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from lacewing.backends.batch import StepLimits
from lacewing.backends.gpu.layouts import LAYOUTS
from lacewing.program.ops import Buffer, Embed, Linear, Logits
from lacewing.program.program import Program
from lacewing.quants import by_name
from tests.backends.cpu.single_ops import (
    HALVES,
    Case,
    MappedWeight,
    ScaledWeight,
    dequantised,
    floats,
    nmse,
    normal,
    one_batch,
    random_weight,
    scaled_weight,
)
from tests.backends.webgpu.single_ops import CODES, FLOATS, LIMIT, backend, expected, run_step


def weight_of(name: str, quant: str, rows: int, width: int, seed: int) -> MappedWeight:
    """Random; FP8 with factors, as it is in checkpoints."""
    if quant == "F8_E4M3":
        return scaled_weight(name, quant, (rows, width), (16, 32), seed)
    return random_weight(name, quant, rows, width, seed)


def values_of(weight: MappedWeight) -> np.ndarray:
    return weight.values() if isinstance(weight, ScaledWeight) else dequantised(weight)


def embedded(weight: MappedWeight, ids: range, variant: str = FLOATS) -> np.ndarray:
    """Rows of a weight as the device's embedding gives them; it has at least as many rows as columns."""
    rows, width = weight.shape
    out = Buffer("out", width).view()
    step = Case((Embed("w", out),), np.zeros((rows, 32), np.float32), out, {"w": weight}).step(backend(variant), 64)
    try:
        return run_step(step, one_batch(len(ids)), ids.start)[:, :width]
    finally:
        step.close()


def products_case(quants: Sequence[str], rows: int, width: int, tokens: int) -> Case:
    """The products of one x with a weight of each quant, beside each other; one matrix each."""
    x, whole = Buffer("x", width).view(), Buffer("out", rows * len(quants))
    outs = {quant: whole.view(rows * index, rows) for index, quant in enumerate(quants)}
    weights = {quant: weight_of(quant, quant, rows, width, seed=2) for quant in quants}
    ops = tuple(Linear(x, (quant,), (out,)) for quant, out in outs.items())
    return Case(ops, normal(tokens, width, seed=3), whole.view(), weights)


def wrong(case: Case, variant: str, batches: Sequence[int]) -> dict[tuple[str, int], float]:
    """NMSE against the reference, of each quant in steps of so many tokens, where it is too large."""
    found, rows = {}, case.out.width // len(case.weights)
    step = case.step(backend(variant), 64)  # type: ignore[arg-type]  # any backend will do
    for tokens in batches:
        given, right = run_step(step, one_batch(tokens)), expected(case, one_batch(tokens))
        for index, quant in enumerate(case.weights):
            mine = slice(rows * index, rows * index + rows)
            found[quant, tokens] = nmse(given[:, mine], right[:, mine])
    step.close()
    return {key: error for key, error in found.items() if not error < LIMIT[variant]}


@pytest.mark.parametrize("quant", LAYOUTS)
def test_rows_are_exact(quant: str) -> None:
    weight = weight_of("w", quant, 259, 256, seed=1)
    values = values_of(weight)
    for ids in (range(33), range(228, 259)):
        assert np.array_equal(embedded(weight, ids), values[ids])


SOME = ("Q4_K", "Q2_K", "Q6_K", "Q8_0", "BF16")  # minimums, two scales a group, both without minimums, floats


PRODUCTS = [(FLOATS, LAYOUTS), (CODES, LAYOUTS), ("none", SOME), ("dot", SOME)]


@pytest.mark.parametrize(
    ("variant", "quants"), [*PRODUCTS, *(pytest.param(name, LAYOUTS, marks=pytest.mark.slow) for name in ("none", "dot"))]
)
def test_products(variant: str, quants: Sequence[str]) -> None:
    """Few and many tokens; an odd number of rows; three runs a row. How a quant is unpacked does not depend on subgroups."""
    assert wrong(products_case(tuple(quants), 37, 768, 12), variant, (3, 12)) == {}


@pytest.mark.parametrize("variant", [FLOATS, CODES])
@pytest.mark.parametrize("width", [32, 96, 1056])
def test_widths_that_are_no_whole_runs(width: int, variant: str) -> None:
    assert wrong(products_case(("Q5_1", "Q8_0", "MXFP4"), 5, width, 9), variant, (2, 9)) == {}


def test_all_codes_of_small_floats_and_uneven_steps() -> None:
    """Every byte, as two codes, minus zero too; MXFP4 at its smallest and largest powers of two."""
    for quant, start in (("MXFP4", 1), ("IQ4_NL", 2), ("NVFP4", 4)):
        kind = by_name(quant)
        weight = random_weight("w", quant, 64, 64, seed=1)
        blocks = weight.data.reshape(-1, kind.block_bytes).copy()
        codes = blocks[:, start:].size
        blocks[:, start:] = (np.arange(codes) % 256).astype(np.uint8).reshape(len(blocks), -1)
        if quant == "MXFP4":
            blocks[:6, 0] = 2, 3, 100, 127, 250, 251
        weight = MappedWeight("w", weight.shape, kind, blocks.reshape(-1))
        assert np.array_equal(embedded(weight, range(64)), dequantised(weight))


def test_powers_of_two_below_float32_count_as_nothing() -> None:
    weight = random_weight("w", "MXFP4", 32, 32)
    blocks = weight.data.reshape(-1, 17).copy()
    blocks[:, 0] = np.arange(32) % 2
    weight = MappedWeight("w", weight.shape, weight.quant, blocks.reshape(-1))
    assert np.abs(dequantised(weight)).max() < 1e-36
    assert not embedded(weight, range(32)).any()


@pytest.mark.parametrize("quant", ["Q4_0", "Q8_0", "Q4_K", "Q6_K", "IQ4_XS"])
def test_small_scales_are_not_lost(quant: str) -> None:
    """A float16 below 2^-14 has fewer bits; flushed to zero, the values would be gone."""
    weight = random_weight("w", quant, 256, 256, seed=1)
    blocks = weight.data.reshape(-1, weight.quant.block_bytes).copy()
    for at in HALVES[quant]:
        blocks[:, at : at + 2] = np.array([2**-18 * 1.25], np.float16).view(np.uint8)
    weight = MappedWeight("w", weight.shape, weight.quant, blocks.reshape(-1))
    assert np.array_equal(embedded(weight, range(16)), dequantised(weight)[:16])


@pytest.mark.parametrize("scale", [np.nan, np.inf])
@pytest.mark.parametrize("quant", ["Q4_1", "Q8_0", "Q6_K"])
def test_broken_scales_flow_through(quant: str, scale: float) -> None:
    """A block whose scale is no number makes the outputs of its row none, and of no other."""
    weight = random_weight("w", quant, 5, 256)
    blocks = weight.data.reshape(5, -1, weight.quant.block_bytes).copy()
    blocks[2, 0, HALVES[quant][0] :][:2] = np.array([scale], np.float16).view(np.uint8)
    weight = MappedWeight("w", weight.shape, weight.quant, blocks.reshape(-1))
    x, weights = Buffer("x", 256).view(), {"rows": floats("rows", normal(5, 256)), "w": weight}
    program = Program((Embed("rows", x), Logits(x, "w")), {name: each.shape for name, each in weights.items()}, (), 5)
    for variant in (FLOATS, CODES):
        step = backend(variant).compile(program, weights, StepLimits(64, 64))
        found = run_step(step, one_batch(3))
        assert not np.isfinite(found[:, 2]).any() and np.isfinite(np.delete(found, 2, axis=1)).all()
        step.close()
