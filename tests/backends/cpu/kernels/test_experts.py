"""The ops of mixtures of experts against the reference backend, and their independence of batch, grouping and threads."""

import numpy as np
import pytest

from lacewing.backends.batch import Batch
from lacewing.backends.cpu import CpuBackend
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.errors import UnsupportedModelError
from lacewing.program.ops import (
    Activation,
    Attention,
    Buffer,
    ClampedActivation,
    Combine,
    ExpertLinear,
    GatedActivation,
    HeadLinear,
    LimitedActivation,
    Linear,
    Op,
    Rope,
    RopeSpec,
    Route,
    ScaleByPosition,
    View,
    WriteKeysValues,
)
from tests.backends.cpu.single_ops import Case, floats, nmse, normal, one_batch, random_weight
from tests.models.running import MappedWeight
from tests.paged import paged

EXPERTS, ACTIVE, WIDTH, ROWS = 6, 2, 64, 48


def stacked(name: str, quant: str, experts: int, rows: int, width: int, seed: int = 0) -> MappedWeight:
    weight = random_weight(name, quant, experts * rows, width, seed)
    return MappedWeight(name, (experts, rows, width), weight.quant, weight.data)


def routed(ops: tuple[Op, ...], out: View, weights: dict[str, MappedWeight], tokens: int, **route: object) -> Case:
    """x = [64 columns of input | one logit an expert], routed, then `ops`."""
    x = normal(tokens, WIDTH + EXPERTS, seed=3)
    logits = Buffer("x", WIDTH + EXPERTS).view(WIDTH)
    return Case((Route(logits, IDS, CHOSEN, **route), *ops), x, out, weights)  # type: ignore[arg-type]


IDS, CHOSEN = Buffer("ids", ACTIVE).view(), Buffer("chosen", ACTIVE).view()
INPUT = Buffer("x", WIDTH + EXPERTS).view(0, WIDTH)
HIDDEN, UP = Buffer("hidden", ACTIVE * ROWS).view(), Buffer("up", ACTIVE * ROWS).view()
BATCHES = {"whole": [13], "single": [1] * 13, "uneven": [2, 8, 3]}


def batches(counts: list[int]) -> list:
    starts = np.cumsum([0, *counts])
    return [([0] * count, list(range(start, start + count))) for start, count in zip(starts, counts, strict=False)]


ROUTES = {
    "softmax": {},
    "renormalised": {"renormalise": True, "scale": 2.5},
    "sigmoid": {"gating": "sigmoid", "scale": 1.8},
    "bias": {"gating": "sigmoid", "bias": "bias", "renormalise": True},
    "sparsemixer": {"gating": "sparsemixer", "jitter": 0.3},
    "groups": {"gating": "sigmoid", "bias": "bias", "groups": 3, "groups_used": 2},
    "groups-by-best": {"groups": 3, "groups_used": 1, "group_best": 1},
}


@pytest.mark.parametrize("variant", ROUTES)
def test_router_chooses_and_weighs_like_the_reference(variant):
    weights = {"bias": floats("bias", normal(EXPERTS, seed=5))}
    for out in (CHOSEN, IDS):
        case = routed((), out, weights if "bias" in ROUTES[variant] else {}, 40, **ROUTES[variant])
        ours, reference = (case.run(one_batch(40), threads=threads) for threads in (2, None))
        np.testing.assert_allclose(
            ours.view(np.int32) if out is IDS else ours, reference.view(np.int32) if out is IDS else reference, rtol=2e-6
        )


@pytest.mark.parametrize(
    ("experts", "route"),
    [(65536, {}), (44000, {"gating": "sparsemixer", "jitter": 0.1}), (43000, {"groups": 43000, "groups_used": 2, "group_best": 1})],
)
def test_more_experts_than_the_scratch_of_a_thread_holds(experts, route):
    """Before any of them is read: small files can name as many."""
    logits = Buffer("x", experts).view()
    case = Case((Route(logits, IDS, CHOSEN, **route),), np.zeros((1, experts), np.float32), CHOSEN, {})
    with pytest.raises(UnsupportedModelError, match=f"needs .* bytes for {experts} experts, more than the 524288 of a thread"):
        case.run(one_batch(1), threads=1)


def test_routing_of_hand_made_logits_is_that_on_paper():
    x = np.zeros((2, EXPERTS), np.float32)
    x[0, [4, 1]] = np.log([3.0, 1.0]) + 20  # e^20 dwarfs the others: 3/4 to expert 4, 1/4 to expert 1
    x[1] = 1.0  # all alike: the lowest ids
    logits = Buffer("x", EXPERTS).view()
    ids = Case((Route(logits, IDS, CHOSEN),), x, IDS, {}).run(one_batch(2)).view(np.int32)
    weights = Case((Route(logits, IDS, CHOSEN),), x, CHOSEN, {}).run(one_batch(2))
    assert ids.tolist() == [[4, 1], [0, 1]]
    np.testing.assert_allclose(weights, [[0.75, 0.25], [1 / 6, 1 / 6]], rtol=1e-6)


def test_a_nan_among_the_logits_shows_in_the_weights():
    x = np.zeros((1, EXPERTS), np.float32)
    x[0, 3] = np.nan
    found = Case((Route(Buffer("x", EXPERTS).view(), IDS, CHOSEN),), x, CHOSEN, {}).run(one_batch(1))
    assert np.isnan(found).all()


FLOATS, BLOCKS, SUPER_BLOCKS = ("F32", "BF16"), ("Q4_0", "Q8_0"), ("IQ1_S", "Q6_K")
SHAPES = ("shared", "separate", "halves", "interleaved")
CASES = [*((quant, shape) for quant in FLOATS + BLOCKS for shape in SHAPES), *((quant, "shared") for quant in SUPER_BLOCKS)]


@pytest.mark.parametrize(("quant", "shape"), CASES)
def test_expert_linear_equals_the_reference_and_itself_in_any_batch(quant, shape):
    width = 256 if quant in SUPER_BLOCKS else WIDTH
    split = 2 if shape in ("halves", "interleaved") else 1
    weights = {"w": stacked("w", quant, EXPERTS, split * ROWS, width), "b": floats("b", normal(EXPERTS, split * ROWS, seed=7))}
    x = normal(13, width + EXPERTS, seed=3)
    whole = Buffer("x", width + EXPERTS)
    options = {"separate": True} if shape == "separate" else {"interleaved": shape == "interleaved"}
    first: tuple[Op, ...] = (Route(whole.view(width), IDS, CHOSEN),)
    source, parts = whole.view(0, width), 1
    if shape == "separate":  # each active expert has its own part: made by a linear of the same kind
        weights |= {"a": stacked("a", "F32", EXPERTS, width, width, seed=9)}
        spread = Buffer("spread", ACTIVE * width).view()
        first += (ExpertLinear(source, IDS, ("a",), (spread,)),)
        source, parts = spread, ACTIVE
    assert source.width == parts * width
    outs = (HIDDEN, UP)[:split]
    ops = (*first, ExpertLinear(source, IDS, ("w",), outs, ("b",), factor=CHOSEN, **options))
    case = Case(ops, x, outs[-1], weights)
    results = {name: case.run(batches(counts), threads=1 + len(counts) % 3) for name, counts in BATCHES.items()}
    reference = case.run(one_batch(13), threads=None)
    assert nmse(results["whole"], reference) < (1e-10 if quant in ("F32", "BF16", "IQ1_S") else 5e-4)
    for name, found in results.items():
        np.testing.assert_array_equal(found, results["whole"], err_msg=name)


def test_combine_and_clamped_activation_equal_the_reference():
    weights = {name: stacked(name, "F32", EXPERTS, ROWS, WIDTH, seed) for seed, name in enumerate(("g", "u"))}
    out = Buffer("out", ROWS).view()
    both = ExpertLinear(INPUT, IDS, ("g", "u"), (HIDDEN, UP))
    for ops in (
        (both, ClampedActivation(HIDDEN, UP, HIDDEN, 1.702, 7.0), Combine(HIDDEN, CHOSEN, out, ACTIVE)),
        (both, LimitedActivation(HIDDEN, UP, UP, 0.7), Combine(UP, CHOSEN, out, ACTIVE)),
        (both, Combine(HIDDEN, None, out, ACTIVE, add=Buffer("x", WIDTH + EXPERTS).view(0, ROWS))),
    ):
        case = routed(ops, out, weights, 13)
        assert nmse(case.run(one_batch(13), threads=2), case.run(one_batch(13), threads=None)) < 1e-10


@pytest.mark.parametrize("width", [32, 96, 256, 544])
@pytest.mark.parametrize("activation", ["gated", "limited", "relu2"])
def test_an_activation_makes_the_bytes_of_each_expert_that_reads_it(activation: str, width: int) -> None:
    """Its own bytes for each part of a row, with pieces of 256 columns that are no whole parts; and those of the row for others."""
    wide, out = ACTIVE * width, Buffer("out", ACTIVE * ROWS).view()
    hidden, up, whole = Buffer("hidden", wide).view(), Buffer("up", wide).view(), Buffer("whole", ROWS).view()
    made: Op = {
        "gated": GatedActivation(hidden, up, hidden),
        "limited": LimitedActivation(hidden, up, hidden, 0.7),
        "relu2": Activation(hidden, hidden, "relu2"),
    }[activation]
    weights = {name: stacked(name, "F32", EXPERTS, width, WIDTH, seed) for seed, name in enumerate(("g", "u"))}
    weights |= {"d": stacked("d", "Q8_0", EXPERTS, ROWS, width, seed=9), "r": random_weight("r", "Q8_0", ROWS, wide, seed=4)}
    first = (ExpertLinear(INPUT, IDS, ("g", "u"), (hidden, up)), made)
    experts, row = ExpertLinear(hidden, IDS, ("d",), (out,), separate=True), Linear(hidden, ("r",), (whole,))
    for ops, seen in (((experts,), out), ((experts, row), out), ((experts, row), whole), ((row, experts), out), ((row,), whole)):
        used = {name for op in (*first, *ops) for name in op.weight_names}
        case = routed((*first, *ops), seen, {name: weights[name] for name in used}, 13)
        found = case.run(one_batch(13), threads=2)
        assert nmse(found, case.run(one_batch(13), threads=None)) < 5e-4
        np.testing.assert_array_equal(found, case.run(batches(BATCHES["uneven"]), threads=3))
        step = case.step(CpuBackend(2), 64)
        assert sum(op.kernel == "quants.activations.quantise_rows" for op in step.ops) == len(ops) - 1
        step.close()


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("quant", ["F32", "F16", "BF16"])
def test_experts_stored_inputs_first_equal_the_reference(quant, interleaved):
    weights = {"w": stacked("w", quant, EXPERTS, WIDTH, 2 * ROWS), "b": floats("b", normal(EXPERTS, 2 * ROWS, seed=7))}
    ops = (ExpertLinear(INPUT, IDS, ("w",), (HIDDEN, UP), ("b",), transposed=True, interleaved=interleaved),)
    for out in (HIDDEN, UP):
        case = routed(ops, out, weights, 13)
        whole = case.run(one_batch(13), threads=2)
        assert nmse(whole, case.run(one_batch(13), threads=None)) < 1e-10
        np.testing.assert_array_equal(whole, case.run(batches(BATCHES["uneven"]), threads=3))


def test_quantised_experts_stored_inputs_first_are_refused():
    weights = {"w": stacked("w", "Q8_0", EXPERTS, WIDTH, 64)}
    ops = (ExpertLinear(INPUT, IDS, ("w",), (Buffer("out", ACTIVE * 64).view(),), transposed=True),)
    with pytest.raises(UnsupportedModelError, match="as floats only; w is Q8_0"):
        routed(ops, Buffer("out", ACTIVE * 64).view(), weights, 2).run(one_batch(2))


HEADS = 4
IN_HALVES = 1e-6  # the weights are rounded to float16, the activations stay as they are


@pytest.mark.parametrize(
    ("quant", "transposed", "rest", "error"),
    [("F32", False, 32, 1e-10), ("F32", True, 32, 1e-10), ("BF16", True, 32, 1e-10), ("Q8_0", False, 32, 5e-4),
     ("Q4_0", False, 32, 5e-4), ("Q8_0", True, 32, IN_HALVES), ("Q4_0", True, 8, IN_HALVES), ("Q8_0", False, 8, IN_HALVES),
     ("Q1_0", True, 32, IN_HALVES)],
)  # fmt: skip
def test_a_linear_for_each_head_equals_the_reference(quant, transposed, rest, error):
    inputs, outputs = (WIDTH, 128) if transposed else (WIDTH, ROWS)
    shape = (HEADS, inputs, outputs) if transposed else (HEADS, outputs, inputs)
    x, out = Buffer("x", HEADS * (inputs + rest)).view(), Buffer("out", HEADS * (outputs + rest)).view()
    case = Case((HeadLinear(x, "w", out, HEADS, transposed),), normal(13, x.width, seed=3), out, {"w": stacked("w", quant, *shape)})
    whole = case.run(one_batch(13), threads=2)
    assert nmse(whole, case.run(one_batch(13), threads=None)) < error
    np.testing.assert_array_equal(whole, case.run(batches(BATCHES["uneven"]), threads=3))


def test_scaling_by_position_equals_the_reference():
    x = Buffer("x", 24).view()
    case = Case((ScaleByPosition(x, 0.1, 8, 1),), normal(40, 24, seed=3), x, {})
    np.testing.assert_allclose(case.run(one_batch(40)), case.run(one_batch(40), threads=None), rtol=2e-6)


@pytest.mark.parametrize(("dtype", "key_width"), [("f16", 40), ("f32", 40), ("q8_0", 64)])
def test_latent_attention_equals_the_reference_in_any_batch(dtype, key_width):
    """Values are the first columns of the only key head; sinks and a chunk on top."""
    heads, value_width = 6, 28 if dtype == "q8_0" else 32
    x = Buffer("x", heads * key_width + key_width)
    q, k, out = x.view(0, heads * key_width), x.view(heads * key_width), Buffer("out", heads * value_width).view()
    rope = RopeSpec((1.0, 0.3, 0.1, 0.01), adjacent=True)
    ops = (
        Rope(q, heads, rope, start=value_width),
        Rope(k, 1, rope, start=value_width),
        WriteKeysValues(k, None, 0),
        Attention(q, out, 0, heads, 1, 0.2, chunk=16, sinks="sinks"),
    )
    states = (paged(1, key_width, value_width, dtype=dtype, latent=True),)
    weights = {"sinks": floats("sinks", normal(heads, seed=11))}
    case = Case(ops, normal(40, x.width, seed=3), out, weights, states)
    whole = case.run(one_batch(40), threads=2)
    assert nmse(whole, case.run(one_batch(40), threads=None)) < (1e-10 if dtype == "f32" else 1e-7)
    np.testing.assert_array_equal(whole, case.run(batches([1, 1, 7, 31]), threads=3))


def test_what_routers_decide_can_be_watched_and_equals_the_reference():
    case = routed((), CHOSEN, {}, 13, renormalise=True)
    seen = []
    for backend in (CpuBackend(2), ReferenceBackend()):
        step = case.step(backend, 64)
        tokens = Batch.of(list(range(13)), 0, [])
        step.run(tokens)
        assert step.routes() == []
        step.watch_routes(True)
        step.run(tokens)
        (found,) = step.routes()
        seen.append((found.layer, found.ids.copy(), found.probabilities.copy()))
        step.watch_routes(False)
        step.run(tokens)
        assert step.routes() == []
        step.close()
    assert seen[0][0] == seen[1][0] == 0
    np.testing.assert_array_equal(seen[0][1], seen[1][1])
    np.testing.assert_allclose(seen[0][2], seen[1][2], rtol=2e-6)
    np.testing.assert_allclose(seen[0][2].sum(axis=1), 1, rtol=1e-5)
