"""Weights that the device keeps in another form, against NumPy and the reference backend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lacewing.backends.gpu.conversion import FP8, FP8_BYTES, Rows, as_q8_0, stored_as
from lacewing.backends.gpu.layouts import LAYOUTS
from lacewing.errors import UnsupportedModelError, WeightError
from lacewing.program.ops import Buffer, Linear
from lacewing.quants import QUANTS, by_name
from tests.backends.cpu.single_ops import (
    Case,
    MappedWeight,
    dequantised,
    floats,
    nmse,
    normal,
    one_batch,
    random_weight,
    scaled_weight,
)
from tests.backends.webgpu.single_ops import FLOATS, backend, error

CONVERTED = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "TQ1_0", "TQ2_0", "Q1_0", "Q2_0")
EXACT = ("TQ1_0", "TQ2_0", "Q1_0", "Q2_0")


def read(weight: MappedWeight, transposed: bool = False) -> np.ndarray:
    """Values of the rows as the device's blocks hold them, three rows at a time: float32 (N, K)."""
    rows = Rows(weight, stored_as(weight, transposed), transposed)
    found = np.empty((rows.count, rows.nbytes), np.uint8)
    for first in range(0, rows.count, 3):
        rows.read(first, found[first : first + 3])
    if rows.stored == FP8:
        groups = found.reshape(rows.count, -1, FP8_BYTES)
        values = (groups[..., :4].copy().view(np.float32) * by_name(FP8).dequantise(groups[..., 4:])).reshape(rows.count, -1)
    else:
        values = by_name(rows.stored).dequantise(found)
    assert not values[:, rows.columns :].any()
    return values[:, : rows.columns]


def product_error(weight: MappedWeight) -> float:
    rows, width = weight.shape
    x, out = Buffer("x", width).view(), Buffer("out", rows).view()
    return error(Case((Linear(x, ("w",), (out,)),), normal(8, width, seed=3), out, {"w": weight}), one_batch(3), FLOATS)


def test_every_quant_has_a_form() -> None:
    for name, quant in QUANTS.items():
        weight = MappedWeight("w", (2, 256), quant, np.zeros(quant.row_bytes(512), np.uint8))
        assert stored_as(weight) in LAYOUTS and (name in LAYOUTS) == (stored_as(weight) == name)


@pytest.mark.parametrize("quant", CONVERTED)
def test_other_quants_become_bytes(quant: str) -> None:
    weight = random_weight("w", quant, 10, 512, seed=4)
    assert stored_as(weight) == "Q8_0"
    assert nmse(read(weight), dequantised(weight)) <= (0 if quant in EXACT else 3e-5)


@pytest.mark.parametrize("quant", ["IQ2_XS", "TQ1_0"])
def test_their_products(quant: str) -> None:
    assert product_error(random_weight("w", quant, 21, 512, seed=5)) < (1e-7 if quant in EXACT else 3e-5)


def test_numbers_become_floats() -> None:
    rng = np.random.default_rng(0)
    for name, dtype, stored in (("F64", "<f8", "F32"), ("I8", "i1", "F16"), ("U8", "u1", "F16"), ("I16", "<i2", "F32")):
        values = (rng.standard_normal((5, 40)) * 100).clip(0 if name == "U8" else -128, 127).astype(dtype)
        weight = MappedWeight("w", (5, 40), by_name(name), values.reshape(-1).view(np.uint8))
        assert stored_as(weight) == stored
        assert np.array_equal(read(weight), values.astype(np.float32))


@pytest.mark.parametrize(("width", "block", "stored"), [
    (256, (128, 128), FP8), (96, (3, 64), FP8), (200, (1, 200), "F16"), (256, (5, 7), "F16")
])  # fmt: skip
def test_fp8_with_factors(width: int, block: tuple[int, int], stored: str) -> None:
    """As it stands where a group of 32 has one factor."""
    weight = scaled_weight("w", FP8, (20, width), block, seed=6)
    assert stored_as(weight) == stored
    if stored == FP8:
        assert np.array_equal(read(weight), weight.values())
    assert nmse(read(weight), weight.values()) < 1e-7
    assert product_error(weight) < (1e-7 if stored == FP8 else 1e-6)


def test_fp8_of_experts_with_factors_of_one_byte() -> None:
    weight = scaled_weight("w", FP8, (3, 10, 64), (4, 32), seed=7, factors="F8_E8M0")
    assert np.array_equal(read(weight), weight.values().reshape(30, 64))


def test_fp8_without_factors() -> None:
    weight = replace(scaled_weight("w", FP8, (4, 64), (4, 64)), scales=None)
    assert stored_as(weight) == FP8 and np.array_equal(read(weight), dequantised(weight))


@pytest.mark.parametrize(("factor", "stored"), [(1e3, "F32"), (1e-9, "F32"), (np.nan, "F32"), (1.0, "F16")])
def test_values_beyond_float16_stay_whole(factor: float, stored: str) -> None:
    weight = scaled_weight("w", FP8, (4, 40), (2, 40))
    weight = replace(weight, scales=floats("factors", np.full((2, 1), factor)))
    assert stored_as(weight) == stored
    expected = dequantised(weight) * np.float32(factor)
    assert np.array_equal(read(weight), expected, equal_nan=True)


def test_floats_with_factors_are_multiplied() -> None:
    weight = replace(floats("w", normal(4, 32), "F16"), scales=floats("factors", np.full((2, 1), 3.0)), scale_block=(2, 32))
    assert np.array_equal(read(weight), dequantised(weight) * 3)


@pytest.mark.parametrize("shape", [(6, 96), (3, 5, 64)])
def test_packed_mxfp4_is_exact(shape: tuple[int, ...]) -> None:
    weight = scaled_weight("w", "F4_E2M1", shape, (1, 32), seed=8, factors="F8_E8M0")
    assert stored_as(weight) == "MXFP4"
    assert np.array_equal(read(weight), weight.values().reshape(-1, shape[-1]))


def test_four_bit_floats_with_other_factors() -> None:
    weight = scaled_weight("w", "F4_E2M1", (6, 96), (2, 16), seed=8)
    assert stored_as(weight) == "F16"
    assert nmse(read(weight), weight.values()) < 1e-7
    assert product_error(weight) < 1e-6


@pytest.mark.parametrize("quant", ["F32", "F16", "BF16", "Q4_K", "F8_E4M3"])
def test_transposed(quant: str) -> None:
    """Stacked matrices stored (inputs, outputs), in one piece and apart."""
    weight = replace(random_weight("w", quant, 3 * 64, 256, seed=9), shape=(3, 64, 256))
    if quant == "F8_E4M3":
        weight = scaled_weight("w", quant, (3, 64, 256), (16, 128), seed=9)
        expected = weight.values()
    else:
        expected = dequantised(replace(weight, shape=(192, 256))).reshape(3, 64, 256)
    apart = replace(weight, pieces=tuple(weight.data.reshape(3, -1)))
    for each in (weight, apart):
        found = read(each, transposed=True)
        assert found.shape == (3 * 256, 64)
        error = nmse(found, expected.transpose(0, 2, 1).reshape(-1, 64))
        assert error <= {"Q4_K": 1e-4, "F8_E4M3": 1e-7}.get(quant, 0)


def test_bytes_have_no_code_beyond_127_and_small_scales_hold() -> None:
    weight = floats("w", np.zeros((1, 32)))
    for size in (1e-7, 3e-5, 1.0, 7e4):
        values = (normal(50, 64, seed=1) * size).astype(np.float32)
        blocks = as_q8_0(values, weight)
        assert blocks.reshape(-1, 34)[:, 2:].view(np.int8).min() >= -127
        step = np.abs(values).reshape(50, 2, 32).max(axis=-1, keepdims=True) / 127 + 6e-8
        found = by_name("Q8_0").dequantise(blocks).reshape(50, 2, 32)
        assert (np.abs(found - values.reshape(50, 2, 32)) <= step * 0.57).all()


def test_infinite_and_absent_numbers_flow_through() -> None:
    values = np.ones((3, 32), np.float32)
    values[0, 3], values[1, 4] = np.nan, np.inf
    found = by_name("Q8_0").dequantise(as_q8_0(values, floats("w", values)))
    assert np.isnan(found[0]).any() and not np.isfinite(found[1]).all() and np.allclose(found[2], 1, rtol=1e-3)


def test_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="beyond what Q8_0 holds"):
        as_q8_0(np.full((1, 32), 1e9, np.float32), floats("big", np.zeros((1, 32))))
    with pytest.raises(UnsupportedModelError, match=r"weight odd: rows of 40 values are no whole blocks of Q4_0"):
        Rows(MappedWeight("odd", (4, 40), by_name("Q4_0"), np.zeros(90, np.uint8)), "Q4_0")
    with pytest.raises(WeightError, match=r"weight short has 3 rows of 32 values"):
        Rows(MappedWeight("short", (4, 32), by_name("Q4_0"), np.zeros(54, np.uint8)), "Q4_0")


def test_a_model_says_what_was_converted() -> None:
    x, outs = Buffer("x", 256).view(), [Buffer(name, 8).view() for name in "abc"]
    weights = {f"w{i}": random_weight(f"w{i}", quant, 8, 256) for i, quant in enumerate(("Q4_0", "IQ2_XS", "F64"))}
    case = Case((Linear(x, tuple(weights), tuple(outs)),), normal(8, 256), outs[0], weights)
    step = case.step(backend(FLOATS), 8)
    assert step.notices == ("the GPU keeps weights in another form: F64 as F32, IQ2_XS as Q8_0",)
    step.close()
