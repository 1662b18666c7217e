"""Prompts on matrix units, emulated (tests/backends/webgpu/emulation.py): places, scales and edges, against the reference."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest

from lacewing.backends.batch import StepLimits
from lacewing.backends.gpu.layouts import LAYOUTS
from lacewing.backends.gpu.run import Run
from lacewing.backends.webgpu.backend import WebGPUBackend
from lacewing.backends.webgpu.device.variant import UNITS, Units
from lacewing.backends.webgpu.kernels import number, shader
from lacewing.backends.webgpu.lowering.forms import SKINNY_ABOVE
from lacewing.program.ops import Buffer, GatedActivation, Linear, Norm
from tests.backends.cpu.kernels.test_experts import ACTIVE, EXPERTS
from tests.backends.cpu.single_ops import Case, floats, nmse, normal, one_batch, random_weight
from tests.backends.webgpu.emulation import EmulatedUnits, check_places
from tests.backends.webgpu.lowering.test_experts import linear_case as experts_case
from tests.backends.webgpu.parser import parser
from tests.backends.webgpu.single_ops import adapter, run_step
from tests.backends.webgpu.single_ops import backend as plain_backend
from tests.checkpoints import prompt_of, tiny
from tests.models.running import open_step, run
from tests.paged import with_pages

INPUTS = ("tokens", "token_rows", "positions", "outputs", "decode", "parts")

SMALL = Units(2, 1, 1, 2, 64)  # 32 tokens x 32 rows
SHAPES = [*UNITS, *(UNITS[0].narrower, UNITS[0].narrower.narrower)]
TOKENS = 77  # more than a GEMV takes, and no multiple of a tile


@cache
def backend(units: Units = SMALL) -> WebGPUBackend:
    with patch.dict(os.environ, {"LACEWING_WEBGPU": "subgroups,dot,half,units"}):
        return WebGPUBackend(EmulatedUnits(adapter(), units))


def case(quant: str, rows: int, width: int, size: float = 1.0, biased: bool = False) -> Case:
    y, weights = Buffer("y", rows).view(), {"w": random_weight("w", quant, rows, width)}
    biases = None
    if biased:
        weights["b"], biases = floats("b", normal(1, rows)[0]), ("b",)
    op = Linear(Buffer("x", width).view(), ("w",), (y,), *((biases,) if biases else ()))
    return Case((op,), normal(TOKENS, width, seed=3) * np.float32(size), y, weights)


def found(one: Case, units: Units = SMALL) -> np.ndarray:
    """All tokens in one run."""
    program = one.program
    step = with_pages(backend(units).compile(program, one.all_weights(program.vocab_size), StepLimits(128, 128)))
    try:
        assert "gemm_units" in {each.label for each in step._dispatches}  # type: ignore[attr-defined]
        return run_step(step, one_batch(TOKENS))[:, : one.out.width]
    finally:
        step.close()


def exact(one: Case, tokens: int = TOKENS) -> np.ndarray:
    """The reference's, which takes up to 64 tokens at a time."""
    half = tokens // 2
    return one.run([*one_batch(half), *one_batch(tokens - half, half)], None, 128)


# codes with scales and minimums, floats, and those that are made float16; Mesa compiles an emulated kernel for seconds
QUICK = ("Q4_K", "F16", "BF16")


@pytest.mark.parametrize("quant", QUICK)
def test_a_product(quant: str, every_width: None) -> None:
    """Rows, tokens and columns that fill no tile."""
    one = case(quant, 70, 256 if quant.endswith("_K") else 288, biased=quant == "F16")
    assert nmse(found(one), exact(one)) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("quant", sorted(set(LAYOUTS) - {"F32", *QUICK}))
def test_a_product_of_every_quant(quant: str) -> None:
    one = case(quant, 70, 256)
    assert nmse(found(one), exact(one)) < 1e-6


@pytest.mark.parametrize("size", [1e-30, 1e7])
@pytest.mark.parametrize(("quant", "width"), [("Q4_0", 96), ("F16", 75)])
def test_activations_beyond_float16(quant: str, width: int, size: float) -> None:
    """Each token has a scale; columns end within a group of 32, and groups within a step of 64."""
    one = case(quant, 70, width, size)
    assert nmse(found(one), exact(one)) < 1e-6


def test_tokens_have_scales_of_their_own() -> None:
    one = case("Q8_0", 64, 128)
    sizes = np.float32(10.0) ** np.linspace(-12, 12, TOKENS, dtype=np.float32)[:, None]
    one = replace(one, x=one.x * sizes)
    assert nmse(found(one) / sizes, exact(one) / sizes) < 1e-6


def test_nan_and_infinity_stay_in_their_tokens() -> None:
    one = case("Q4_K", 64, 256)
    x = one.x.copy()
    x[3, 7], x[70, 9] = np.nan, np.inf
    got = found(replace(one, x=x))
    assert np.isnan(got[3]).all() and not np.isfinite(got[70]).any()
    others = np.delete(np.arange(TOKENS), [3, 70])
    assert nmse(got[others], exact(one)[others]) < 1e-6


@pytest.fixture
def every_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of few rows with BF16 take units too."""
    monkeypatch.setattr("lacewing.backends.webgpu.lowering.forms.NARROW_ROWS", 0)


def with_weights(values: np.ndarray) -> Case:
    """A product with BF16, (rows, columns)."""
    one = case("BF16", *values.shape)
    return replace(one, weights={"w": floats("w", values, "BF16")})


@pytest.mark.parametrize(("least", "most"), [(1e-5, 1e-3), (1e-3, 4080.0)])
def test_bf16_in_the_range_of_float16(least: float, most: float, every_width: None) -> None:
    """From a row of small weights to one of the largest that float16 holds."""
    values, sizes = normal(70, 96, seed=8), np.geomspace(least, most, 70, dtype=np.float32)
    one = with_weights(values * (sizes / np.abs(values).max(axis=1))[:, None])
    assert nmse(found(one) / sizes, exact(one) / sizes) < 1e-6


@pytest.mark.parametrize("value", [4096.0, -5e4, 1e30])
def test_bf16_beyond_float16_stays_so(value: float, every_width: None) -> None:
    values = normal(70, 96, seed=8)
    values[3, 5] = value
    one = with_weights(values)
    program = one.program
    step = with_pages(backend().compile(program, one.all_weights(program.vocab_size), StepLimits(128, 128)))
    assert "gemm_units" not in {each.label for each in step._dispatches}  # type: ignore[attr-defined]
    got, rest = run_step(step, one_batch(TOKENS))[:, :70], np.arange(70) != 3
    step.close()
    expected = exact(one)
    assert nmse(got[:, rest], expected[:, rest]) < 1e-10
    assert nmse(got[:, 3], expected[:, 3]) < 1e-10


def test_weights_of_one_op_of_which_float16_holds_some(every_width: None) -> None:
    """They are one matrix; the norm before makes the floats that it reads."""
    x, n, y, z = (Buffer(name, 96).view() for name in "xnyz")
    large = normal(96, 96, seed=8)
    large[3, 5] = 1e5
    weights = {"a": random_weight("a", "BF16", 96, 96), "b": floats("b", large, "BF16")}
    ops = (Norm(x, "n", n, 1e-5), Linear(n, ("a", "b"), (y, z)))
    one = Case(ops, normal(TOKENS, 96, seed=3), y, {**weights, "n": floats("n", np.ones(96))})
    program = one.program
    step = with_pages(backend().compile(program, one.all_weights(program.vocab_size), StepLimits(128, 128)))
    got = run_step(step, one_batch(TOKENS))[:, :96]
    step.close()
    assert nmse(got, exact(one)) < 1e-9


@pytest.mark.parametrize("factor", [100.0, 200.0])
def test_factors_of_float8_beyond_float16(factor: float) -> None:
    """448 times the factor is what they stand for at most."""
    one = case("F8_E4M3", 64, 96)
    weight = one.weights["w"]
    scales = floats("s", np.full((1, 1), factor, np.float32))
    one = replace(one, weights={"w": replace(weight, scales=scales, scale_block=(64, 96))})
    program = one.program
    step = with_pages(backend().compile(program, one.all_weights(program.vocab_size), StepLimits(128, 128)))
    assert ("gemm_units" in {each.label for each in step._dispatches}) == (factor == 100.0)  # type: ignore[attr-defined]
    got = run_step(step, one_batch(TOKENS))[:, :64]
    step.close()
    assert nmse(got, exact(one)) < 1e-6


def test_routers_of_bf16_stay_floats() -> None:
    one = case("BF16", 64, 96)
    program = one.program
    step = with_pages(backend().compile(program, one.all_weights(program.vocab_size), StepLimits(128, 128)))
    assert "gemm_float_narrow" in {each.label for each in step._dispatches}  # type: ignore[attr-defined]
    assert nmse(run_step(step, one_batch(TOKENS))[:, :64], exact(one)) < 1e-10
    step.close()


def test_float32_weights_stay_so() -> None:
    one = case("F32", 64, 96)
    program = one.program
    step = with_pages(backend().compile(program, one.all_weights(program.vocab_size), StepLimits(128, 128)))
    assert "gemm_units" not in {each.label for each in step._dispatches}  # type: ignore[attr-defined]
    step.close()


@pytest.mark.parametrize("most", [2, 3])
def test_rows_beyond_a_grid_take_no_units(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of rows are on one axis of a grid; 84 rows, those of two weights together, are three tiles."""
    monkeypatch.setattr("lacewing.backends.webgpu.lowering.forms.WIDEST", most, raising=False)
    x, y, z = (Buffer(name, rows).view() for name, rows in (("x", 64), ("y", 52), ("z", 32)))
    weights = {name: random_weight(name, "Q8_0", rows, 64, seed=rows) for name, rows in (("a", 52), ("b", 32))}
    one = Case((Linear(x, ("a", "b"), (y, z)),), normal(TOKENS, 64, seed=3), y, {**weights, "n": floats("n", np.ones(64))})
    one = replace(one, ops=(Norm(x, "n", x, 1e-5), *one.ops))
    program = one.program
    step = with_pages(backend().compile(program, one.all_weights(program.vocab_size), StepLimits(128, 128)))
    grids = [each.grid(Run(TOKENS, 0, TOKENS)) for each in step._dispatches if each.label == "gemm_units"]  # type: ignore[attr-defined]
    grids = [each for each in grids if each is not None]
    got = run_step(step, one_batch(TOKENS))[:, :52]
    step.close()
    assert len(grids) == (most == 3) and all(max(each) <= 3 for each in grids)
    assert nmse(got, exact(one)) < (1e-6 if most == 3 else 5e-4)


def test_the_activations_are_made_anew_when_they_change() -> None:
    """Two products of x, then one of what has taken its place."""
    x, y, z = Buffer("x", 96).view(), Buffer("y", 96).view(), Buffer("z", 64).view()
    ops = (Linear(x, ("a",), (y,)), Linear(x, ("c",), (z,)), GatedActivation(y, y, x), Linear(x, ("b",), (z,)))
    weights = {name: random_weight(name, "Q8_0", rows, 96, seed=rows) for name, rows in (("a", 96), ("b", 64), ("c", 64))}
    one = Case(ops, normal(TOKENS, 96, seed=3), z, weights)
    assert nmse(found(one), exact(one)) < 1e-6


MIXED = [("shared", "F16"), ("shared", "BF16"), ("separate", "Q4_K"), ("halves", "MXFP4"), ("interleaved", "Q6_K")]


@pytest.mark.parametrize(("tokens", "tile"), [(20, 16), (TOKENS, 32)])
@pytest.mark.parametrize(("shape", "quant"), MIXED)
def test_products_with_the_experts_that_tokens_chose(shape: str, quant: str, tokens: int, tile: int) -> None:
    """In tiles of one expert, as large as suits the tokens; with biases and factors."""
    one = experts_case(quant, shape, 256 if quant.endswith("_K") else 64, tokens)
    program = one.program
    step = with_pages(backend().compile(program, one.all_weights(program.vocab_size), StepLimits(128, 128)))
    try:
        taken = [each for each in step._dispatches if each.grid(Run(tokens, 0, tokens)) is not None]  # type: ignore[attr-defined]
        (kernel,) = (each for each in taken if each.label == "expert_gemm_units")
        assert kernel.grid(Run(tokens, 0, tokens))[1] == tokens * ACTIVE // tile + EXPERTS
        got = run_step(step, one_batch(tokens))[:, : one.out.width]
    finally:
        step.close()
    assert nmse(got, exact(one, tokens)) < 1e-6


@pytest.mark.parametrize("tokens", [20, TOKENS])
def test_activations_of_which_fewer_tokens_are_read_next(tokens: int) -> None:
    """A linear op takes them as float16 from more tokens on than the experts do."""
    one = experts_case("Q8_0", "shared", 64, tokens)
    weights = {**one.weights, "a": random_weight("a", "Q8_0", 32, 64)}
    first = Linear(Buffer("x", 64 + EXPERTS).view(0, 64), ("a",), (Buffer("y", 32).view(),))
    both = replace(one, ops=(first, *one.ops), weights=weights)
    program = both.program
    step = with_pages(backend().compile(program, both.all_weights(program.vocab_size), StepLimits(128, 128)))
    try:
        got = run_step(step, one_batch(tokens))[:, : one.out.width]
    finally:
        step.close()
    assert nmse(got, exact(both, tokens)) < 1e-6


def test_experts_whose_inputs_fill_no_step_take_no_units() -> None:
    """The next expert's would be multiplied with the last columns."""
    one = experts_case("Q8_0", "separate", 32, TOKENS)
    program = one.program
    step = with_pages(backend().compile(program, one.all_weights(program.vocab_size), StepLimits(128, 128)))
    assert "expert_gemm_units" not in {each.label for each in step._dispatches}  # type: ignore[attr-defined]
    step.close()


@pytest.mark.parametrize("chunk", [128, 48, 8])
def test_a_model_and_its_memory(chunk: int, tmp_path: Path) -> None:
    """Logits of every token of a prompt; what is promised is what is taken."""
    path, ids = tiny("llama-wide", "gguf", tmp_path, "Q4_K"), prompt_of("llama", TOKENS)
    _, reference = open_step(path, 128)
    spec, step = open_step(path, 128, backend(), chunk=chunk)
    labels = {each.label for each in step._dispatches}  # type: ignore[attr-defined]
    assert ("gemm_units" in labels) == ("halve" in labels) == (chunk > SKINNY_ABOVE)
    if chunk > SKINNY_ABOVE:
        assert nmse(run(step, ids[:chunk]), run(reference, ids[:chunk])) < 1e-5
    memory = backend().memory(spec.program, dict(spec.tensors), StepLimits(spec.context, chunk))
    assert 0.9 * memory.buffer_bytes <= step.buffer_bytes <= memory.buffer_bytes
    step.close()


def test_runs_are_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With units, and where a binding holds their activations."""
    program = open_step(tiny("llama-wide", "gguf", tmp_path, "Q4_K"), 128)[0].program
    assert backend().run_tokens(program) == 2048 and plain_backend("dot").run_tokens(program) == 0
    monkeypatch.setattr("lacewing.backends.webgpu.backend.UNIT_RUN", 2**22)
    assert backend().run_tokens(program) == 0


@pytest.mark.parametrize("chunk", [32, 96])
def test_a_mixture_and_its_memory(chunk: int, tmp_path: Path) -> None:
    """Its experts take units from fewer tokens on than linear ops do; the plan counts bytes of all buffers, though few have any."""
    path = tiny("olmoe", "gguf", tmp_path, "Q8_0")
    spec, step = open_step(path, 128, backend(), chunk=chunk)
    labels = {each.label for each in step._dispatches}  # type: ignore[attr-defined]
    assert "expert_gemm_units" in labels
    memory = backend().memory(spec.program, dict(spec.tensors), StepLimits(spec.context, chunk))
    assert 0.8 * memory.buffer_bytes <= step.buffer_bytes <= memory.buffer_bytes
    step.close()


def test_the_shapes_of_real_devices_are_taken_by_the_compiler() -> None:
    """Of every quant; only their emulation is smaller, since it would take minutes."""
    place = {"base": 0, "stride": 64}
    chosen = {
        "outs": [place], "parts": 1, "active": 2, "part": 256, "experts": 4, "first_expert": 0, "lists": place, "tiles": 9,
        "factor": None, "interleaved": False,
    }  # fmt: skip
    for units, layout in itertools.product(SHAPES, LAYOUTS.values()):
        constants = {
            "layout": layout, "groups": 8, "columns": 256, "rows": 300, "by_rows": False, "first_row": 0, "biased": False,
            "target": "arena", "outs": [{"start": 0, "end": 300, "place": place}], "units": units,
            "halves": SimpleNamespace(values=place, scales=place, words=128), "variant": backend().device.variant,
            "number": number, "inputs": SimpleNamespace(**dict.fromkeys(INPUTS, 0)), "fours": layout.halves,
        }  # fmt: skip
        if layout.quant != "F32":
            parser().check(shader("gemm_units", **constants), f"{layout.quant} {units}")
            parser().check(shader("expert_gemm_units", **{**constants, **chosen}), f"{layout.quant} {units} of experts")
    assert [each.nbytes for each in SHAPES] == [37376, 27904, 23168]
    assert [each.tokens for each in SHAPES] == [128, 64, 32] and SHAPES[-1].narrower is None
    with pytest.raises(ValueError, match="do not share out the loads"):
        Units(4, 2, 2, 4, 32)


def test_matrices_begin_at_multiples_of_16_bytes() -> None:
    """Kernels of this file are checked where they are emulated; here, that the check finds what misled an H200."""
    tile = "struct Tile { expert: u32, start: u32, count: u32 }\nvar<workgroup> shared_tile: Tile;"
    with pytest.raises(AssertionError, match="shared_tile has 12 bytes"):
        check_places(tile)
    check_places("var<workgroup> memory: buffer<4096>;\nvar<workgroup> moved: array<atomic<u32>, 4>;")
