"""The ops of mixtures and of latent attention in the reference backend: routings known on paper, formulas written out."""

import math

import numpy as np
import pytest

from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.program.check import check_program
from lacewing.program.ops import (
    Attention,
    Buffer,
    ClampedActivation,
    Combine,
    ExpertLinear,
    HeadLinear,
    LimitedActivation,
    Linear,
    Norm,
    Rope,
    RopeSpec,
    Route,
    ScaleByPosition,
    WriteKeysValues,
)
from tests import paged
from tests.backends.test_reference import RNG, compute, identity_program

TOKENS = [3, 0, 7, 3]
X = Buffer("x", 8).view()
LOGITS = Buffer("logits", 6).view()


def checked(ops, weights, width, tokens, **others):
    """As `compute`, with the program checked first."""
    vocab = others.get("out_width") or width
    listed = {**weights, "embedding": np.empty((vocab, width)), "identity": np.empty((vocab, vocab))}
    check_program(identity_program(ops, listed, width, vocab, others.get("states", ())))
    return compute(ops, weights, width, tokens, **others)


def route(logits, active, backend=None, **fields):
    """ids (A,) and weights (A,) of one row of logits."""
    experts = len(logits)
    shown, wide = Buffer("out", experts), Buffer("x", experts).view()
    ids, weights = Buffer("ids", active).view(), Buffer("weights", active).view()
    bias = {"bias": np.array(fields.pop("bias"), np.float32)} if "bias" in fields else {}
    scores = Buffer("scores", experts).view()
    # each expert e gives a row of ones at place e, so that the combination shows the weight of every expert
    stack = np.zeros((experts, experts, experts), np.float32)
    for e in range(experts):
        stack[e, e] = 1
    each = Buffer("each", active * experts).view()
    ops = [
        Norm(wide, None, Buffer("unused", experts).view(), 1e-3),
        Linear(wide, ("zero",), (scores,), ("logits",)),
        Linear(wide, ("zero",), (Buffer("one", experts).view(),), ("unit",)),
        Route(scores, ids, weights, bias="bias" if bias else None, **fields),
        ExpertLinear(Buffer("one", experts).view(), ids, ("stack",), (each,)),
        Combine(each, weights, shown.view(), active),
    ]
    named = {"zero": np.zeros((experts, experts)), "logits": np.array(logits, np.float32), "stack": stack, **bias}
    named["unit"] = np.eye(experts)[0]
    stack[:, :, 0] = np.eye(experts)  # the input is the unit vector 0
    return checked(ops, named, experts, [0])[1][0]


def softmax(values):
    powers = np.exp(np.array(values, float) - max(values))
    return powers / powers.sum()


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def expected(experts, chosen):
    row = np.zeros(experts)
    for expert, weight in chosen.items():
        row[expert] = weight
    return row


LOG = [0.1, 2.0, -1.0, 1.5, 0.0, 1.0]


def test_softmax_routing():
    p = softmax(LOG)
    np.testing.assert_allclose(route(LOG, 2), expected(6, {1: p[1], 3: p[3]}), rtol=1e-5)
    total = p[1] + p[3] + p[5]
    np.testing.assert_allclose(
        route(LOG, 3, renormalise=True, scale=2.5), expected(6, {e: 2.5 * p[e] / total for e in (1, 3, 5)}), rtol=1e-5
    )


def test_sigmoid_routing_with_a_bias_that_only_chooses():
    found = route(LOG, 2, gating="sigmoid", bias=[0, 0, 5.0, 0, 0, 0])
    np.testing.assert_allclose(found, expected(6, {2: sigmoid(-1.0), 1: sigmoid(2.0)}), rtol=1e-5)


def test_sparsemixer_weighs_the_best_among_those_that_are_nearly_as_large():
    """m - x <= 2 * jitter * max(|x|, m), without those that were chosen before."""
    found = route([1.0, 4.0, 3.5, -4.5, 2.9, 0.0], 2, gating="sparsemixer", jitter=0.1)
    first, second = 1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(-0.6))  # 3.5 is near 4; of the others 2.9 is near 3.5
    np.testing.assert_allclose(found, expected(6, {1: first, 2: second}), rtol=1e-5)
    below = route([-2.0, -1.0, -9.0, -1.1, -9.0, -9.0], 2, gating="sparsemixer", jitter=0.05)
    np.testing.assert_allclose(below, expected(6, {1: 1 / (1 + math.exp(-0.1)), 3: 1.0}), rtol=1e-5)


def test_groups_of_experts():
    """Groups (0 1) (2 3) (4 5): sums 2.1, 0.5, 1.0 of the logits; the order of p is another for sums of sigmoids."""
    p = [sigmoid(v) for v in LOG]
    sums = [p[0] + p[1], p[2] + p[3], p[4] + p[5]]
    first = int(np.argmax(sums))
    assert first == 0
    chosen = {1: p[1], 0: p[0]}
    np.testing.assert_allclose(route(LOG, 2, gating="sigmoid", groups=3, groups_used=1), expected(6, chosen), rtol=1e-5)
    both = route(LOG, 2, gating="sigmoid", groups=3, groups_used=2, group_best=1)
    np.testing.assert_allclose(both, expected(6, {1: p[1], 3: p[3]}), rtol=1e-5)
    summed = route(LOG, 2, gating="sigmoid", groups=3, groups_used=2, group_best=2)
    np.testing.assert_allclose(summed, expected(6, {1: p[1], 5: p[5]}), rtol=1e-5)


def test_a_bias_changes_the_group():
    found = route(LOG, 1, gating="sigmoid", groups=3, groups_used=1, bias=[0, 0, 9.0, -9.5, 0, 0])
    np.testing.assert_allclose(found, expected(6, {1: sigmoid(2.0)}), rtol=1e-5)
    found = route(LOG, 1, gating="sigmoid", groups=3, groups_used=1, group_best=1, bias=[0, 0, 9.0, -9.5, 0, 0])
    np.testing.assert_allclose(found, expected(6, {2: sigmoid(-1.0)}), rtol=1e-5)


def test_equal_scores_go_to_the_lower_expert():
    np.testing.assert_allclose(route([1.0] * 6, 2), expected(6, {0: 1 / 6, 1: 1 / 6}), rtol=1e-5)


def test_saturated_scores_are_still_told_apart():
    found = route([60.0, 70.0, 65.0, 0, 0, 0], 1, gating="sigmoid")
    np.testing.assert_allclose(found, expected(6, {1: 1.0}))


@pytest.mark.parametrize("gating", ["softmax", "sigmoid"])
def test_scores_that_are_not_numbers_show(gating):
    assert np.isnan(route([float("nan"), 1, 2, 3, 4, 5], 2, gating=gating)).any()


def experts(separate=False, transposed=False, interleaved=False, two=False, biased=False, factor=False):
    """Two of three experts from 8 to 4 values; what the ops give and what they should."""
    inputs = 4 if separate else 8
    x = Buffer("x", 8).view()
    logits, ids, weights = (Buffer(name, width).view() for name, width in (("logits", 3), ("ids", 2), ("weights", 2)))
    out = Buffer("out", 16 if two else 8)
    outs = (out.view(0, 8), out.view(8, 8)) if two else (out.view(),)
    rows = 8 if two else 4
    stack, bias, router = (RNG.standard_normal(shape).astype(np.float32) for shape in ((3, rows, inputs), (3, rows), (3, 8)))
    named = {"stack": stack.swapaxes(1, 2).copy() if transposed else stack, "router": router} | ({"bias": bias} if biased else {})
    ops = [
        Linear(x, ("router",), (logits,)),
        Route(logits, ids, weights),
        ExpertLinear(x, ids, ("stack",), outs, ("bias",) if biased else (), weights if factor else None, separate, transposed,
                     interleaved),
    ]  # fmt: skip
    given, found = checked(ops, named, 8, TOKENS, out_width=out.width)
    for row, got in zip(given.astype(float), found, strict=True):
        p = softmax(router @ row)
        parts = []
        for a, e in enumerate(np.argsort(-p)[:2]):
            part = stack[e] @ (row[4 * a : 4 * a + 4] if separate else row)
            parts.append((part * p[e] if factor else part) + (bias[e] if biased else 0))
        if two:
            cut = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(0, 4), slice(4, 8))
            parts = [part[piece] for piece in cut for part in parts]
        np.testing.assert_allclose(got, np.concatenate(parts), atol=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    "fields",
    [{}, {"separate": True}, {"biased": True}, {"factor": True, "biased": True}, {"two": True, "biased": True},
     {"two": True, "interleaved": True, "biased": True}],
)  # fmt: skip
def test_expert_linear(fields, transposed):
    experts(transposed=transposed, **fields)


def test_combine_without_weights_and_with_a_shared_expert():
    out = Buffer("out", 4).view()
    weight = RNG.standard_normal((4, 8))
    ops = [Linear(X, ("w",), (out,)), Combine(X, None, out, 2, add=out)]
    x, found = checked(ops, {"w": weight}, 8, [3, 0, 2, 3], out_width=4)
    np.testing.assert_allclose(found, x[:, :4] + x[:, 4:] + x @ weight.T, atol=1e-5)


def test_clamped_activation():
    up, out = Buffer("up", 8).view(), Buffer("out", 8).view()
    gain = np.diag(np.full(8, 9.0))
    ops = [Linear(X, ("gain",), (up,)), ClampedActivation(X, up, out, 1.702, 0.5)]
    x, found = checked(ops, {"gain": gain}, 8, TOKENS)
    for row, got in zip(x.astype(float), found, strict=True):
        for g, value in zip(row, got, strict=True):
            u = min(max(9 * g, -0.5), 0.5)
            g = min(g, 0.5)
            assert value == pytest.approx(g * sigmoid(1.702 * g) * (u + 1), abs=1e-5)


def test_limited_activation():
    """The limit comes behind the activation, and holds for large gates from above alone."""
    up, out = Buffer("up", 8).view(), Buffer("out", 8).view()
    ops = [Linear(X, ("gain",), (up,)), LimitedActivation(up, X, out, 0.5)]
    x, found = checked(ops, {"gain": np.diag(np.full(8, 9.0))}, 8, TOKENS)
    for row, got in zip(x.astype(float), found, strict=True):
        for u, value in zip(row, got, strict=True):
            assert value == pytest.approx(min(9 * u * sigmoid(9 * u), 0.5) * min(max(u, -0.5), 0.5), abs=1e-5)
    assert (np.abs(found) == np.float32(0.25)).any()  # both are limited


def test_scale_by_position():
    out = Buffer("out", 8).view()
    ops = [Linear(X, ("same",), (out,)), ScaleByPosition(out, 0.5, 4, 1)]
    x, found = checked(ops, {"same": np.eye(8)}, 8, [0, 1, 2, 3, 4, 5, 6, 7], positions=range(8))
    np.testing.assert_allclose(found, x * [[1 + 0.5 * math.log(1 + (p + 1) // 4)] for p in range(8)], rtol=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
def test_head_linear_and_rotation_of_the_rest(transposed):
    """Two heads of 3 values and 2 that are rotated and copied; 4 values come of the 3."""
    x, out = Buffer("heads", 10).view(), Buffer("out", 12).view()
    spread, weight = RNG.standard_normal((10, 8)), RNG.standard_normal((2, 4, 3))
    named = {"spread": spread, "w": weight.swapaxes(1, 2).copy() if transposed else weight}
    ops = [Linear(X, ("spread",), (x,)), Rope(x, 2, RopeSpec((0.3,), adjacent=True), 3), HeadLinear(x, "w", out, 2, transposed)]
    given, found = checked(ops, named, 8, TOKENS, out_width=12)
    for position, (row, got) in enumerate(zip(given @ spread.T, found, strict=True)):
        for head in range(2):
            part = row[5 * head : 5 * head + 5]
            turned = complex(part[3], part[4]) * np.exp(0.3j * position)
            expected_head = [*(weight[head] @ part[:3]), turned.real, turned.imag]
            np.testing.assert_allclose(got[6 * head : 6 * head + 6], expected_head, atol=1e-5)


@pytest.mark.parametrize(("chunk", "sinks", "window"), [(3, False, None), (None, True, None), (4, True, 2)])
def test_attention_with_chunks_and_sinks(chunk, sinks, window):
    q, k, v, out = (Buffer(name, width).view() for name, width in (("q", 16), ("k", 8), ("v", 6), ("out", 12)))
    named = {"q": RNG.standard_normal((16, 8)), "k": RNG.standard_normal((8, 8)), "v": RNG.standard_normal((6, 8))}
    named |= {"sinks": np.array([0.5, -1.0, 2.0, 30.0])} if sinks else {}
    ops = [
        Linear(X, ("q", "k", "v"), (q, k, v)),
        WriteKeysValues(k, v, 0),
        Attention(q, out, 0, 4, 2, 0.6, window, None, chunk, "sinks" if sinks else None),
    ]
    tokens = [3, 1, 7, 3, 5, 2, 0, 4]
    x, found = checked(ops, named, 8, tokens, states=(paged.paged(2, 4, 3),), out_width=12)
    queries, keys, values = (x.astype(float) @ named[name].T for name in "qkv")
    for row in range(len(tokens)):
        seen = [p for p in range(row + 1) if not window or row - p < window]
        seen = [p for p in seen if not chunk or p // chunk == row // chunk]
        for head in range(4):
            part = slice(head // 2 * 4, head // 2 * 4 + 4)
            powers = np.exp([0.6 * queries[row, head * 4 : head * 4 + 4] @ keys[p, part] for p in seen])
            total = powers.sum() + (math.exp(named["sinks"][head]) if sinks else 0)
            mixed = sum(power * values[p, head // 2 * 3 : head // 2 * 3 + 3] for power, p in zip(powers, seen, strict=True))
            np.testing.assert_allclose(found[row, head * 3 : head * 3 + 3], mixed / total, atol=1e-5)


@pytest.mark.parametrize("half", [False, True])
def test_values_in_keys_are_stored_once(half):
    q, k, out = (Buffer(name, width).view() for name, width in (("q", 10), ("k", 5), ("out", 6)))
    named = {"q": RNG.standard_normal((10, 8)), "k": RNG.standard_normal((5, 8))}
    ops = [Linear(X, ("q", "k"), (q, k)), WriteKeysValues(k, None, 0), Attention(q, out, 0, 2, 1, 0.5)]
    state = paged.paged(1, 5, 3, latent=True)
    assert state.page_bytes == 128 * 2 * 5
    x, found = checked(ops, named, 8, [3, 1], states=(state,), out_width=6, backend=ReferenceBackend(exact=not half))
    queries, keys = x @ named["q"].T, x @ named["k"].T
    for head in range(2):
        powers = np.exp([0.5 * queries[1, head * 5 : head * 5 + 5] @ keys[p] for p in range(2)])
        mixed = (powers[:, None] * keys[:, :3]).sum(axis=0) / powers.sum()
        np.testing.assert_allclose(found[1, head * 3 : head * 3 + 3], mixed, atol=2e-2 if half else 1e-5)
