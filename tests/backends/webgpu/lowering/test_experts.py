"""The ops of mixtures of experts on WebGPU, against the reference: every form, few tokens and many, and what routers decide."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from lacewing.backends.cpu import CpuBackend
from lacewing.backends.gpu.arena import Arena
from lacewing.backends.gpu.run import Run
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.backends.webgpu.device.device import Device
from lacewing.backends.webgpu.lowering import compiler
from lacewing.errors import UnsupportedModelError
from lacewing.program.ops import (
    Buffer,
    ClampedActivation,
    Combine,
    ExpertLinear,
    GatedActivation,
    LimitedActivation,
    Linear,
    Op,
    Route,
)
from tests.backends.cpu.kernels.test_experts import (
    ACTIVE,
    CHOSEN,
    EXPERTS,
    HIDDEN,
    IDS,
    INPUT,
    ROUTES,
    ROWS,
    UP,
    WIDTH,
    batches,
    routed,
    stacked,
)
from tests.backends.cpu.single_ops import Case, floats, nmse, normal, one_batch, random_weight
from tests.backends.webgpu.single_ops import CODES, FLOATS, LIMIT, error, expected, run, run_step
from tests.backends.webgpu.single_ops import backend as open_backend
from tests.checkpoints import prompt_of, tiny
from tests.models.running import open_step
from tests.models.running import run as run_model

TOKENS = 15  # more than a few
BATCHES = {"single": [1] * TOKENS, "uneven": [2, 12, 1]}
MIXED = batches([2, 13])  # few tokens, then many


def labels(case: Case, tokens: int, variant: str = CODES) -> list[str]:
    """The kernels between embedding and logits that a run of so many tokens takes."""
    step = case.step(open_backend(variant), 64)  # type: ignore[arg-type]  # any backend will do
    try:
        found = [d.label for d in step.dispatches if d.grid(Run(tokens, 0, 64, single=tokens == 1)) is not None]  # type: ignore[attr-defined]
    finally:
        step.close()
    return found[found.index("embed") + 1 :]


def decisions(x: np.ndarray, weights: dict, backend: Any = None, **fields: object) -> tuple[np.ndarray, np.ndarray]:
    """ids (T, A) and weights (T, A) that a router makes of rows of logits; the ids as watched, since as floats they are tiny."""
    op = Route(Buffer("x", x.shape[1]).view(), IDS, CHOSEN, **fields)  # type: ignore[arg-type]
    step = Case((op,), x, CHOSEN, weights).step(backend or open_backend(), 64)
    try:
        step.watch_routes(True)
        weighed = run_step(step, one_batch(len(x)))[:, :ACTIVE]
        return step.routes()[0].ids.copy(), weighed
    finally:
        step.close()


def like_the_reference(x: np.ndarray, weights: dict, backend: Any = None, **fields: object) -> None:
    ours, reference = (decisions(x, weights, which, **fields) for which in (backend or open_backend(), ReferenceBackend()))
    np.testing.assert_array_equal(ours[0], reference[0])
    np.testing.assert_allclose(ours[1], reference[1], rtol=2e-6)


@pytest.mark.parametrize("variant", ["none", CODES])
@pytest.mark.parametrize("form", ROUTES)
def test_router_chooses_and_weighs_like_the_reference(form: str, variant: str) -> None:
    weights = {"bias": floats("bias", normal(EXPERTS, seed=5))} if "bias" in ROUTES[form] else {}
    like_the_reference(normal(40, EXPERTS, seed=3), weights, open_backend(variant), **ROUTES[form])


@pytest.mark.parametrize(("experts", "groups"), [(512, 1), (256, 8), (5, 1)])
def test_router_of_many_experts(experts: int, groups: int) -> None:
    """More experts than threads of a workgroup, more than one group, and fewer experts than threads."""
    fields = {"groups": groups, "groups_used": min(groups, 4), "gating": "sigmoid", "bias": "bias"}
    like_the_reference(normal(9, experts, seed=4), {"bias": floats("bias", normal(experts, seed=5))}, **fields)


def test_routing_of_hand_made_logits_is_that_on_paper() -> None:
    x = np.zeros((7, EXPERTS), np.float32)
    x[0, [4, 1]] = np.log([3.0, 1.0]) + 20  # e^20 dwarfs the others: 3/4 to expert 4, 1/4 to expert 1
    x[1] = 1.0  # all alike: the lowest ids
    x[2, 3] = np.nan
    x[3] = [-0.0, 0.0, -1.0, -0.0, 0.0, -2.0]  # zeros are alike
    x[4] = [-3e38, -3.2e38, -2e38, -3.2e38, -3.2e38, -3.2e38]
    x[5, 2], x[6, 4] = np.inf, -np.inf
    ids, weights = decisions(x, {})
    assert ids.tolist() == [[4, 1], [0, 1], [0, 1], [0, 1], [2, 0], [0, 1], [0, 1]]
    np.testing.assert_allclose(weights[:2], [[0.75, 0.25], [1 / 6, 1 / 6]], rtol=1e-6)
    assert np.isnan(weights[[2, 5, 6]]).all()
    np.testing.assert_allclose(weights[4], [1.0, 0.0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_selection_bias_that_is_not_finite_shows(value: float) -> None:
    """It would only choose, so nothing else would tell."""
    bias = np.zeros(EXPERTS, np.float32)
    bias[3] = value
    ids, weights = decisions(normal(3, EXPERTS, seed=8), {"bias": floats("bias", bias)}, gating="sigmoid", bias="bias")
    assert ids.tolist() == [[0, 1]] * 3 and np.isnan(weights).all()


def test_too_many_experts_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="1024 experts at most, not 1056"):
        decisions(normal(2, 1056), {})


SHAPES = ("shared", "separate", "halves", "interleaved")


def linear_case(quant: str, shape: str, width: int, tokens: int = TOKENS) -> Case:
    """An ExpertLinear with bias and factor, in one of the forms of the op."""
    split = 2 if shape in ("halves", "interleaved") else 1
    weights = {"w": stacked("w", quant, EXPERTS, split * ROWS, width), "b": floats("b", normal(EXPERTS, split * ROWS, seed=7))}
    whole = Buffer("x", width + EXPERTS)
    first: tuple[Op, ...] = (Route(whole.view(width), IDS, CHOSEN),)
    source = whole.view(0, width)
    if shape == "separate":  # each active expert has its own part: made by a linear of the same kind
        weights |= {"a": stacked("a", "F32", EXPERTS, width, width, seed=9)}
        source = Buffer("spread", ACTIVE * width).view()
        first += (ExpertLinear(whole.view(0, width), IDS, ("a",), (source,)),)
    outs, options = (HIDDEN, UP)[:split], {"separate": shape == "separate", "interleaved": shape == "interleaved"}
    ops = (*first, ExpertLinear(source, IDS, ("w",), outs, ("b",), factor=CHOSEN, **options))
    return Case(ops, normal(tokens, width + EXPERTS, seed=3), outs[-1], weights)


GRID = [(quant, WIDTH, shape, variant) for quant, variant in (("F32", "none"), ("Q8_0", CODES)) for shape in SHAPES]
GRID += [("F32", 36, "separate", FLOATS), ("Q6_K", 256, "halves", "dot"), ("Q6_K", 256, "interleaved", FLOATS)]


@pytest.mark.parametrize(("quant", "width", "shape", "variant"), GRID)
def test_expert_linear_equals_the_reference_and_itself_in_any_batch(quant: str, width: int, shape: str, variant: str) -> None:
    case = linear_case(quant, shape, width)
    reference = expected(case, one_batch(TOKENS))
    few = run(case, batches(BATCHES["uneven"]), variant)
    for found in (few, run(case, one_batch(TOKENS), variant)):
        assert nmse(found, reference) < (1e-11 if quant == "F32" else LIMIT[variant])
    np.testing.assert_array_equal(few, run(case, batches(BATCHES["single"]), variant))


@pytest.mark.parametrize("quant", ["BF16", "Q4_K", "MXFP4"])
def test_many_tokens_do_not_see_how_they_are_grouped(quant: str) -> None:
    case = linear_case(quant, "separate", 256, 40)
    whole = run(case, one_batch(40))
    np.testing.assert_array_equal(whole, run(case, batches([13, 14, 13])))
    assert nmse(whole, expected(case, one_batch(40))) < LIMIT[CODES]


def test_weights_of_two_quants_and_one_bias() -> None:
    weights = {"g": stacked("g", "Q8_0", EXPERTS, ROWS, WIDTH, 1), "u": stacked("u", "F16", EXPERTS, ROWS, WIDTH, 2)}
    weights |= {"b": floats("b", normal(EXPERTS, ROWS, seed=7))}
    for bias in ((None, "b"), ("b", None)):
        for out in (HIDDEN, UP):
            case = routed((ExpertLinear(INPUT, IDS, ("g", "u"), (HIDDEN, UP), bias),), out, weights, TOKENS)
            assert error(case, MIXED) < LIMIT[CODES]


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("quant", ["F32", "Q8_0"])
def test_experts_stored_inputs_first_equal_the_reference(quant: str, interleaved: bool) -> None:
    weights = {"w": stacked("w", quant, EXPERTS, WIDTH, 2 * ROWS), "b": floats("b", normal(EXPERTS, 2 * ROWS, seed=7))}
    ops = (ExpertLinear(INPUT, IDS, ("w",), (HIDDEN, UP), ("b",), transposed=True, interleaved=interleaved),)
    for out in (HIDDEN, UP):
        case = routed(ops, out, weights, TOKENS)
        assert error(case, MIXED, FLOATS) < (1e-11 if quant == "F32" else 1e-4)


OUT, MIDDLE = Buffer("out", WIDTH).view(), 32


def block(quant: str, kind: str, biased: bool, shared: bool, tokens: int = TOKENS, middle: int = MIDDLE) -> Case:
    """Gate, up, activation, down and sum, as the models have them."""
    wide = Buffer("wide", 2 * ACTIVE * middle)
    gate, up, each = wide.view(0, ACTIVE * middle), wide.view(ACTIVE * middle), Buffer("each", ACTIVE * WIDTH).view()
    weights = {name: stacked(name, quant, EXPERTS, middle, WIDTH, seed) for seed, name in enumerate(("g", "u"))}
    weights |= {"d": stacked("d", quant, EXPERTS, WIDTH, middle, 3), "s": random_weight("s", quant, WIDTH, WIDTH, 4)}
    weights |= {
        f"b{name}": floats(f"b{name}", normal(EXPERTS, rows, seed=rows))
        for name, rows in (("g", middle), ("u", middle), ("d", WIDTH))
    }
    activations: dict[str, Op] = {
        "gated": GatedActivation(gate, up, gate, "gelu_tanh"), "clamped": ClampedActivation(gate, up, gate, 1.702, 7.0),
        "limited": LimitedActivation(gate, up, gate, 0.7),
    }  # fmt: skip
    ops = (
        ExpertLinear(INPUT, IDS, ("g", "u"), (gate, up), ("bg", "bu") if biased else ()),
        activations[kind],
        ExpertLinear(gate, IDS, ("d",), (each,), ("bd",) if biased else (), separate=True),
        *((Linear(INPUT, ("s",), (OUT,)),) if shared else ()),
        Combine(each, None if shared else CHOSEN, OUT, ACTIVE, OUT if shared else None),
    )
    used = ["g", "u", "d", *(["bg", "bu", "bd"] if biased else []), *(["s"] if shared else [])]
    return routed(ops, OUT, {name: weights[name] for name in used}, tokens)


FORMS = {"gated": ("gated", False, True), "clamped": ("clamped", True, False), "limited": ("limited", False, True)}


BLOCKS = [("F16", "gated", "none"), ("Q8_0", "clamped", FLOATS), ("Q8_0", "clamped", "dot"), ("Q8_0", "gated", CODES),
          ("F16", "limited", "none"), ("Q8_0", "limited", CODES)]  # fmt: skip


@pytest.mark.parametrize(("quant", "form", "variant"), BLOCKS)
def test_a_whole_block_equals_the_reference(quant: str, form: str, variant: str) -> None:
    case = block(quant, *FORMS[form])
    reference = expected(case, one_batch(TOKENS))
    few = run(case, batches([2, 8, 5]), variant)  # few for the shared linear too
    for found in (few, run(case, one_batch(TOKENS), variant)):
        assert nmse(found, reference) < (1e-10 if quant == "F16" else LIMIT[variant])
    np.testing.assert_array_equal(few, run(case, batches(BATCHES["single"]), variant))


@pytest.mark.parametrize("kind", ["gated", "clamped"])
@pytest.mark.parametrize("of_floats", ["gu", "d"])
def test_a_block_of_floats_and_codes(of_floats: str, kind: str) -> None:
    """Products that read floats make no bytes; one that reads bytes may follow, in runs of few tokens and of many."""
    case, other = block("Q8_0", kind, False, False), block("F16", kind, False, False)
    mixed = replace(case, weights={**case.weights, **{name: other.weights[name] for name in of_floats}})
    for each in (MIXED, one_batch(TOKENS)):
        assert error(mixed, each) < LIMIT[CODES]


def test_workgroups_of_an_odd_size_are_not_asked_for() -> None:
    """A limit of 896 threads is 512 for us: 28 teams would make 28 of 32 rows."""
    limits, case = open_backend().device.limits, block("Q8_0", "gated", False, False)
    with patch.dict(limits, {"max-compute-invocations-per-workgroup": 28 * open_backend().device.variant.lanes}):
        assert error(case, batches([2])) < LIMIT[CODES]


def test_a_token_takes_few_dispatches_and_many_tokens_are_grouped_once() -> None:
    case = block("Q8_0", "gated", True, False)
    assert labels(case, 1) == ["route", "quantise", "expert_gemv", "expert_sum"]
    many = ["route", "quantise", "expert_lists", "expert_gemm_dot", "gated", "expert_gemm_dot", "combine"]
    assert labels(case, TOKENS) == many


def test_what_lies_between_ops_is_kept_where_it_is_read_later() -> None:
    """The same block, but for one thing that is looked at afterwards."""
    case = block("Q8_0", "clamped", True, False)
    _, _, activation, down, _ = case.ops
    for seen, kept in ((activation.up, "clamped"), (down.outs[0], "combine")):  # type: ignore[attr-defined]
        shown = replace(case, out=seen)
        assert kept in labels(shown, 1)
        assert error(shown, MIXED) < LIMIT[CODES]


def test_combine_alone_adds_in_order_and_takes_no_weights() -> None:
    weights = {name: stacked(name, "F32", EXPERTS, ROWS, WIDTH, seed) for seed, name in enumerate(("g", "u"))}
    out = Buffer("out", ROWS).view()
    both = ExpertLinear(INPUT, IDS, ("g", "u"), (HIDDEN, UP))
    for ops in (
        (both, ClampedActivation(HIDDEN, UP, HIDDEN, 1.702, 0.7), Combine(HIDDEN, CHOSEN, out, ACTIVE)),
        (both, LimitedActivation(HIDDEN, UP, UP, 0.7), Combine(UP, CHOSEN, out, ACTIVE)),
        (both, Combine(HIDDEN, None, out, ACTIVE, add=Buffer("x", WIDTH + EXPERTS).view(0, ROWS))),
    ):
        case = routed(ops, out, weights, TOKENS)
        assert error(case, MIXED, FLOATS) < 1e-10


def test_a_nan_shows_in_what_comes_of_it() -> None:
    case = block("Q8_0", "clamped", False, False)
    case.x[3, 5] = np.nan
    case.x[7, WIDTH] = np.nan
    case.x[1, WIDTH + 1] = np.nan
    assert np.flatnonzero(np.isnan(run(case, MIXED)).any(axis=1)).tolist() == [1, 3, 7]


def test_a_nan_shows_in_what_a_gated_product_makes_of_it() -> None:
    """The feed-forward of every token, such as shared experts."""
    x, both = normal(TOKENS, WIDTH, seed=3), Buffer("both", 2 * WIDTH)
    x[[1, 7], 5] = np.nan
    gate, up = both.view(0, WIDTH), both.view(WIDTH)
    weights = {name: random_weight(name, "Q8_0", WIDTH, WIDTH, seed) for seed, name in enumerate(("g", "u", "d"))}
    ops = (Linear(Buffer("x", WIDTH).view(), ("g", "u"), (gate, up)), GatedActivation(gate, up, gate), Linear(gate, ("d",), (OUT,)))
    case = Case(ops, x, OUT, weights)
    assert "gemv_gated" in labels(case, 1)
    assert np.flatnonzero(np.isnan(run(case, MIXED)).any(axis=1)).tolist() == [1, 7]


def test_stacks_larger_than_a_binding() -> None:
    """20 experts in three buffers: each is asked for its own, and nothing is done twice."""
    experts, quant, room = 20, "Q8_0", 2**15
    weights = {"g": stacked("g", quant, experts, 64, WIDTH), "d": stacked("d", quant, experts, WIDTH, 64, 5)}
    hidden, each = Buffer("hidden", ACTIVE * 64).view(), Buffer("each", ACTIVE * WIDTH).view()
    x = Buffer("x", WIDTH + experts)
    ops = (
        Route(x.view(WIDTH), IDS, CHOSEN),
        ExpertLinear(x.view(0, WIDTH), IDS, ("g",), (hidden,)),
        ExpertLinear(hidden, IDS, ("d",), (each,), separate=True),
        Combine(each, CHOSEN, OUT, ACTIVE),
    )
    case = Case(ops, normal(44, x.width, seed=3), OUT, weights)
    both = batches([3, 41])
    whole, reference = run(case, both), expected(case, both)
    with patch.object(Device, "largest_buffer", room), patch.object(compiler, "Arena", lambda chunk, _: Arena(chunk, 2**28)):
        assert labels(case, 1).count("expert_gemv") == 6
        cut = run(case, both)
    assert nmse(cut, reference) < LIMIT[CODES] and nmse(cut, whole) < 1e-11


@pytest.mark.parametrize(("name", "quant", "variant"), [("mixtral", "F16", FLOATS), ("qwen3moe", "Q8_0", CODES),
                                                        ("gpt-oss", "MXFP4", CODES), ("gpt-oss", "F32", "none")])  # fmt: skip
def test_tiny_mixtures_whole(name: str, quant: str, variant: str, tmp_path: Path) -> None:
    """Where activations are bytes, those of the CPU backend are the same: little else differs."""
    path, ids = tiny(name, "gguf", tmp_path, quant), prompt_of(name, 20)
    _, other = open_step(path, 64, CpuBackend(2) if variant == CODES else ReferenceBackend(exact=False), chunk=32)
    _, step = open_step(path, 64, open_backend(variant), chunk=32)
    try:
        wanted, prompt = run_model(other, ids), run_model(step, ids)
        singly = np.concatenate([run_model(step, [token], at) for at, token in enumerate(ids)])
    finally:
        step.close()
        other.close()
    assert nmse(prompt, wanted) < 1e-5 and nmse(singly, wanted) < 1e-5
