"""Attention of prompts on matrix units, emulated (tests/backends/webgpu/emulation.py), against the reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lacewing.backends.batch import StepLimits
from lacewing.backends.gpu.pages import PageLayout, RowLayout
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.backends.webgpu.device.variant import UNITS, Variant
from lacewing.backends.webgpu.lowering.attention_prefill import UnitPrefill
from tests.backends.cpu.single_ops import Batch, Case, nmse
from tests.backends.webgpu.lowering.test_attention import attention_case
from tests.backends.webgpu.lowering.test_units import backend
from tests.backends.webgpu.single_ops import run_step
from tests.paged import with_pages

# a prompt whose tokens fill no tile; more of it, beside another row's first tokens
PROMPT: list[Batch] = [([0] * 75, list(range(75))), ([0] * 37 + [1] * 50, [*range(75, 112), *range(50)])]
COUNT = 75 + 87


def error(case: Case, units: bool = True) -> float:
    program, limits = case.program, StepLimits(128, 128, 2)
    weights = case.all_weights(program.vocab_size)
    step = with_pages(backend().compile(program, weights, limits))
    reference = with_pages(ReferenceBackend().compile(program, weights, limits))
    try:
        labels = {each.label for each in step._dispatches}  # type: ignore[attr-defined]
        assert ("attention_units" in labels) == units
        return nmse(run_step(step, PROMPT)[:, : case.out.width], run_step(reference, PROMPT)[:, : case.out.width])
    finally:
        step.close()
        reference.close()


@pytest.mark.parametrize(
    ("shape", "how"),
    [
        ((4, 2, 64, 64), {}),
        ((2, 1, 32, 48), {"sinks": True, "softcap": 3.0}),
        ((2, 1, 32, 32), {"window": 19}),
        ((2, 1, 32, 16), {"chunk": 40}),
        ((2, 1, 48, 32), {"latent": True}),
    ],
    ids=str,
)
def test_prompts(shape: tuple[int, int, int, int], how: dict[str, Any]) -> None:
    assert error(attention_case(COUNT, *shape, **how)) < 1e-6


@pytest.mark.slow
def test_wide_heads() -> None:
    """The software adapter's workgroup memory holds two subgroups of 128."""
    assert error(attention_case(COUNT, 2, 1, 128, 128)) < 1e-6


@pytest.mark.parametrize(("width", "down"), [(64, 4), (128, 4), (256, 2), (512, None)])
def test_sizes(width: int, down: int | None) -> None:
    """Subgroups of a workgroup with 48 KiB, as an H200's through Dawn has."""
    rows = RowLayout(1, width, "f16")
    found = UnitPrefill.of(PageLayout(rows, rows, width, 0, 1), Variant(True, True, 32, True, UNITS[0]), 49152)
    assert found is None if down is None else found is not None and found.down == down and found.nbytes <= 49152


@pytest.mark.parametrize(("width", "dtype"), [(32, "f32"), (40, "f16")])
def test_other_pages_stay_without_units(width: int, dtype: str) -> None:
    assert error(attention_case(COUNT, 2, 1, width, width, dtype=dtype), units=False) < 1e-6


def test_queries_beyond_float16() -> None:
    """They have scales of their own; the op's scale makes up for them."""
    case = attention_case(COUNT, 2, 1, 32, 32)
    write, attend = case.ops
    case = replace(case, ops=(write, replace(attend, scale=attend.scale * 1e-6)))  # type: ignore[attr-defined,call-arg]
    case.x[:, :64] *= 1e6
    assert error(case) < 1e-6
