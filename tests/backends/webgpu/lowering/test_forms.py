"""Forms of activations that the kernels which make them make too: which are, for how many tokens, and what reads them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lacewing.backends.batch import StepLimits
from lacewing.backends.gpu.run import Run
from lacewing.backends.webgpu.lowering.forms import SKINNY_ABOVE
from lacewing.program.ops import Activation, AddNorm, Buffer, ClampedActivation, ExpertLinear, GatedActivation, Linear, Norm, Op
from tests import paged
from tests.backends.cpu.kernels.test_experts import ACTIVE, IDS, routed, stacked
from tests.backends.cpu.single_ops import Case, floats, nmse, normal, one_batch, random_weight
from tests.backends.webgpu.lowering.test_experts import block
from tests.backends.webgpu.lowering.test_units import TOKENS, backend, exact
from tests.backends.webgpu.single_ops import run_step
from tests.paged import with_pages

WIDTH, WIDE = 96, 160  # float16 has whole blocks of 64 columns
X, N, G, U, Z, Y = (
    Buffer(name, width).view() for name, width in zip("xnguzy", (WIDTH, WIDTH, WIDE, WIDE, WIDE, WIDTH), strict=True)
)


def case(*more: Op) -> Case:
    """A norm, a gated product, and what follows."""
    ops = (Norm(X, "norm", N, 1e-5), Linear(N, ("g", "u"), (G, U)), GatedActivation(G, U, Z), Linear(Z, ("d",), (Y,)), *more)
    weights = {name: random_weight(name, "Q8_0", rows, columns, seed=rows) for name, rows, columns in
               (("g", WIDE, WIDTH), ("u", WIDE, WIDTH), ("d", WIDTH, WIDE))}  # fmt: skip
    return Case(ops, normal(TOKENS, WIDTH, seed=3), Y, weights | {"norm": floats("norm", 1 + normal(1, WIDTH)[0] / 8)})


def compiled(one: Case) -> Any:
    program = one.program
    return with_pages(backend().compile(program, one.all_weights(program.vocab_size), StepLimits(128, 128)))


def launched(step: Any, tokens: int) -> list[str]:
    return [each.label for each in step._dispatches if each.grid(Run(tokens, 0, tokens)) is not None]


@pytest.mark.parametrize("tokens", [8, 20, TOKENS])
def test_norms_and_activations_make_them(tokens: int) -> None:
    """Of few tokens bytes, of many float16: nothing else is launched for either."""
    one = case()
    one = replace(one, x=one.x[:tokens])
    step = compiled(one)
    labels = launched(step, tokens)
    assert "halve" not in labels and "quantise" not in labels
    assert ("gated_row" in labels) == ("gemm_units" in labels) == (tokens > SKINNY_ABOVE) == ("gated" not in labels)
    got = run_step(step, one_batch(tokens))[:, :WIDTH]
    step.close()
    assert nmse(got, exact(one, tokens)) < (1e-6 if tokens > SKINNY_ABOVE else 5e-4)


@pytest.mark.parametrize("tokens", [8, 20, TOKENS])
def test_bytes_are_made_for_runs_that_read_them(tokens: int) -> None:
    """Of values that no whole-row kernel makes: the gate begins at no multiple of four."""
    gate = Buffer("g", WIDE + 1).view(1)
    one = case()
    norm, _, _, last = one.ops
    one = replace(one, ops=(norm, Linear(N, ("g",), (gate,)), Linear(N, ("u",), (U,)), GatedActivation(gate, U, Z), last))
    one = replace(one, x=one.x[:tokens])
    step = compiled(one)
    labels = launched(step, tokens)
    assert (
        "gated_any" in labels
        and labels.count("quantise") == (tokens <= SKINNY_ABOVE)
        and labels.count("halve") == (tokens > SKINNY_ABOVE)
    )
    got = run_step(step, one_batch(tokens))[:, :WIDTH]
    step.close()
    assert nmse(got, exact(one, tokens)) < (1e-6 if tokens > SKINNY_ABOVE else 5e-4)


def test_floats_stay_where_something_reads_them() -> None:
    """Then the activation makes floats, and float16 is made of these."""
    one = case(Activation(Z, U, "silu"), Linear(U, ("d",), (Y,)))
    step = compiled(one)
    labels = launched(step, TOKENS)
    assert "gated_row" in labels and "gated" in labels and labels.count("halve") == 1
    got = run_step(step, one_batch(TOKENS))[:, :WIDTH]
    step.close()
    assert nmse(got, exact(one)) < 1e-6


def test_a_row_of_zeros_and_one_that_is_not_finite() -> None:
    one = case()
    x = one.x.copy()
    x[5], x[9, 3] = 0, np.nan
    one = replace(one, x=x)
    step = compiled(one)
    got = run_step(step, one_batch(TOKENS))[:, :WIDTH]
    step.close()
    assert (got[5] == 0).all() and np.isnan(got[9]).all()
    others = np.delete(np.arange(TOKENS), [5, 9])
    assert nmse(got[others], exact(one)[others]) < 1e-6


def test_what_is_written_over_is_made_anew() -> None:
    """The norm's output is changed before it is read again."""
    one = case(AddNorm(N, Y, "norm", X, 1e-5), Linear(N, ("g",), (U,)), Linear(U, ("d",), (Y,)))
    step = compiled(one)
    got = run_step(step, one_batch(TOKENS))[:, :WIDTH]
    step.close()
    assert nmse(got, exact(one)) < 1e-6


@pytest.mark.parametrize("kind", ["gated", "limited", "clamped"])
def test_of_experts_too(kind: str) -> None:
    """The activation of many tokens makes float16 alone: nothing makes it again of floats that are not there."""
    one = block("Q8_0", kind, False, False, TOKENS, middle=64)
    step = compiled(one)
    labels = launched(step, TOKENS)
    assert labels.count("expert_gemm_units") == 2
    assert ("gated_row" in labels) == (kind != "clamped")
    assert labels.count("halve") == (1 if kind != "clamped" else 2)  # of the input, which no kernel makes
    assert "quantise" not in labels and "quantise" in launched(step, 5)  # of the input as well
    got = run_step(step, one_batch(TOKENS))[:, : one.out.width]
    step.close()
    assert nmse(got, exact(one)) < 4e-6  # three products in a row


@pytest.mark.parametrize(("clamped", "value"), [(False, np.nan), (True, np.nan), (False, 1e25)])  # the last makes infinities
def test_what_is_not_finite_of_an_earlier_run_stays_where_it_was(clamped: bool, value: float) -> None:
    """The part of an expert that another device has keeps what was there; what the token's other expert makes does not change."""
    width, middle, tokens, here = 64, 64, 40, 4  # of six experts
    gate, up = (Buffer(name, ACTIVE * middle).view() for name in ("gate", "up"))
    weights = {name: stacked(name, "Q8_0", here, middle, width, seed) for seed, name in enumerate("gud")}
    act = ClampedActivation(gate, up, gate, 1.702, 7.0) if clamped else GatedActivation(gate, up, gate)
    each = Buffer("each", ACTIVE * width)
    one = routed(
        (
            ExpertLinear(Buffer("x", width + 6).view(0, width), IDS, ("g", "u"), (gate, up)),
            act,
            ExpertLinear(gate, IDS, ("d",), (each.view(),), separate=True),
        ),
        each.view(width),
        weights,
        2 * tokens,
    )
    one.x[:tokens, width:], one.x[tokens:, width:] = [1, 2, 0, 0, 0, 0], [0, 1, 0, 0, 0, 2]  # both here; the first elsewhere

    def second_run(case: Case, first: int) -> np.ndarray:
        step = compiled(case)
        for begin in range(first, 2 * tokens, tokens):
            ids = np.arange(begin, begin + tokens)
            found = paged.run(step, ids, [0] * tokens, list(range(tokens)), np.arange(tokens)).copy()
        step.close()
        return found[:, :width]

    wrong = one.x.copy()
    wrong[3, :width] = value
    np.testing.assert_array_equal(second_run(replace(one, x=wrong), 0), second_run(one, tokens))
