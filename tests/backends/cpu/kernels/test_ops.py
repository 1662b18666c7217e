"""Every op of the CPU backend against the reference backend, over shapes that do and do not fit its registers."""

import numpy as np
import pytest

from lacewing.backends.cpu.isa import host_isa
from lacewing.program.check import ACTIVATIONS, SINGLE_ACTIVATIONS
from lacewing.program.ops import Activation, Buffer, GatedActivation, Hadamard, LimitedActivation, Linear, Norm, Op, Rope, RopeSpec
from tests.backends.cpu.checks import check_against_reference, gated_case, heads_case, norm_case
from tests.backends.cpu.single_ops import (
    Case,
    as_bytes_and_back,
    dequantised,
    floats,
    nmse,
    normal,
    one_batch,
    random_weight,
    singly,
)

LANES = host_isa().lanes
XIELU = (0.9, 1.3, 0.5, -1e-6)
BATCHES = [*one_batch(1), *one_batch(2, 1), *one_batch(17, 3), *one_batch(1, 20)]


@pytest.mark.parametrize("width", [1, 5, LANES, LANES + 1, 32, 100, 576])
@pytest.mark.parametrize(("weighted", "add"), [(True, False), (True, True), (False, False), (False, True)])
def test_norm(width: int, weighted: bool, add: bool) -> None:
    check_against_reference(norm_case(width, 1, weighted, add), BATCHES)


@pytest.mark.parametrize("width", [5, LANES, 100, 576])
def test_layer_norm(width: int) -> None:
    """Of values whose mean is not 0; also without a weight, and of heads."""
    for weighted, add in ((True, False), (True, True), (False, False)):
        check_against_reference(norm_case(width, 1, weighted, add, centred=True), BATCHES)
    check_against_reference(norm_case(3 * width, 3, True, False, in_place=True, centred=True), BATCHES)


@pytest.mark.parametrize(("width", "heads"), [(60, 3), (256, 4), (90, 9)])
def test_norm_of_heads(width: int, heads: int) -> None:
    for in_place in (False, True):
        check_against_reference(norm_case(width, heads, True, False, in_place), BATCHES)


@pytest.mark.parametrize(("width", "heads"), [(60, 3), (256, 4), (96, 1)])
def test_norm_of_heads_with_weights_of_their_own(width: int, heads: int) -> None:
    """Also before a rotation, with which it is not joined."""
    x, weights = Buffer("x", width).view(), {"w": floats("w", normal(width, seed=1))}
    norm, rope = Norm(x, "w", x, 1e-5, heads, 1.0), Rope(x, heads, RopeSpec((1.0, 0.1)))
    for ops in ((norm,), (norm, rope)):
        check_against_reference(Case(ops, normal(21, width), x, weights), BATCHES)


@pytest.mark.parametrize("width", [8, 12, 20, 64, 80, 128, 256])
@pytest.mark.parametrize("adjacent", [False, True])
def test_rope(width: int, adjacent: bool) -> None:
    for pairs in {width // 2, width // 4, 1, LANES % (width // 2) or 1}:
        check_against_reference(heads_case(3, width, pairs, adjacent, norm=False), BATCHES)
    check_against_reference(heads_case(2, width, width // 2, adjacent, norm=True), BATCHES)


@pytest.mark.parametrize("first", [4000, 131_000, 1_000_000])
def test_rope_far_out(first: int) -> None:
    """Angles are float64: a float32 position times frequency would be off by 0.06 at a million."""
    case = heads_case(2, 64, 32, adjacent=False, norm=False)
    check_against_reference(case, one_batch(21, first), 2e-6, context=first + 30)


def test_several_ropes_and_norms_of_parts_of_one_buffer() -> None:
    buffer = Buffer("x", 160)
    q, k = buffer.view(0, 96), buffer.view(96, 64)
    one, two = (RopeSpec(tuple(base ** (-i / 8) for i in range(8))) for base in (1e4, 1e6))
    weights = {name: floats(name, normal(32, seed=seed)) for seed, name in enumerate(("wq", "wk"))}
    ops: tuple[Op, ...] = (Norm(q, "wq", q, 1e-6, 3), Norm(k, "wk", k, 1e-6, 2), Rope(q, 3, one), Rope(k, 2, two), Rope(q, 3, two))
    check_against_reference(Case(ops, normal(21, 160), buffer.view(), weights), BATCHES)
    ops = (Rope(k, 2, one), Norm(k, "wk", k, 1e-6, 2))  # a norm after the rotation
    del weights["wq"]
    check_against_reference(Case(ops, normal(21, 160), buffer.view(), weights), BATCHES)


@pytest.mark.parametrize(("width", "size"), [(32, 32), (64, 64), (96, 32), (128, 128), (256, 256), (512, 512), (64, 32)])
def test_hadamard(width: int, size: int) -> None:
    """By itself, behind a rotation, before one, twice, and of parts of one buffer."""
    buffer, rope = Buffer("x", 5 * width), RopeSpec(tuple(1e4 ** (-i / 8) for i in range(8)))
    q, k = buffer.view(0, 3 * width), buffer.view(3 * width, 2 * width)
    for ops in (
        (Hadamard(q, 3, size),),
        (Norm(q, None, q, 1e-6, 3), Rope(q, 3, rope), Rope(k, 2, rope), Hadamard(k, 2, size), Hadamard(q, 3, size)),
        (Hadamard(k, 2, size), Rope(k, 2, rope), Hadamard(q, 3, size), Hadamard(q, 3, size)),
    ):
        check_against_reference(Case(ops, normal(21, buffer.width), buffer.view(), {}), BATCHES)


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh", "sigmoid"])
@pytest.mark.parametrize("width", [1, LANES - 1, LANES, 33, 96, 256, 300, 544])
def test_gated_activation(width: int, activation: str) -> None:
    for in_place in (False, True):
        check_against_reference(gated_case(width, activation, in_place), BATCHES)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_gate_for_every_part(activation: str) -> None:
    """One for all columns, one for each head; in place of up, which is narrower or wider than a register."""
    for parts, width in ((1, 1), (1, 96), (3, LANES + 1), (4, 32), (5, 3)):
        both = Buffer("x", parts + parts * width)
        gate, up = both.view(0, parts), both.view(parts)
        for out in (up, Buffer("out", parts * width).view()):
            ops = (GatedActivation(gate, up, out, activation),)
            check_against_reference(Case(ops, 3 * normal(21, both.width), out, {}), BATCHES)


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh", "sigmoid"])
def test_gated_activation_of_extremes(activation: str) -> None:
    gates = np.array([0, -0.0, 1e-30, -1e-3, 9, -9, 20, -20, 88, -88, 1e3, -1e3, 1e8, -1e8, 3e12, -3e12], np.float32)
    both, out = Buffer("x", 32), Buffer("out", 16).view()
    x = np.concatenate([gates, np.ones(16, np.float32)])[None]
    case = Case((GatedActivation(both.view(0, 16), both.view(16), out, activation),), x, out, {})
    np.testing.assert_allclose(case.run(one_batch(1)), case.run(one_batch(1), None), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("function", SINGLE_ACTIVATIONS)
def test_activation(function: str) -> None:
    """Of any width, in place and not, small and large; a NaN stays one."""
    constants = XIELU if function == "xielu" else ()
    for width in (1, LANES, 33, 300, 544):
        x = Buffer("x", width).view()
        for out in (x, Buffer("out", width).view()):
            check_against_reference(Case((Activation(x, out, function, constants),), normal(21, width) * 4, out, {}), BATCHES)
    values = [0, -0.0, 1e-30, -1e-30, -1e-3, 3, -3, 9, -9, 20, -20, 90, -90, 1e3, -1e3, np.nan]
    x, out = Buffer("x", 16).view(), Buffer("out", 16).view()
    case = Case((Activation(x, out, function, constants),), np.array([values], np.float32), out, {})
    found, expected = case.run(one_batch(1)), case.run(one_batch(1), None)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=5e-7)


@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 8, 9, 17, 64])
def test_linear_of_floats(tokens: int) -> None:
    """Several outputs of one op with and without biases, odd widths, fewer rows than lanes."""
    x = Buffer("x", 67)
    out = Buffer("y", 40)
    views = (out.view(0, 3), out.view(3, 21), out.view(24, 16))
    quants = ("F32", "F16", "BF16")
    weights = {f"w{i}": random_weight(f"w{i}", quant, views[i].width, 61, seed=i) for i, quant in enumerate(quants)}
    weights["b"] = floats("b", normal(21, seed=7))
    ops = (Linear(x.view(6), ("w0", "w1", "w2"), views, (None, "b", None)),)
    check_against_reference(Case(ops, normal(tokens, 67), out.view(), weights), one_batch(tokens))


@pytest.mark.parametrize("width", [3, 32, 300])
def test_limited_activation(width: int) -> None:
    """In place of gate and of up; a NaN stays one."""
    both, out = Buffer("x", 2 * width), Buffer("out", width).view()
    gate, up = both.view(0, width), both.view(width)
    x = normal(21, 2 * width) * 2
    x[3, 1], x[4, width] = np.nan, np.nan
    for to in (gate, up, out):
        case = Case((LimitedActivation(gate, up, to, 0.7),), x, to, {})
        found = case.run(one_batch(21), 2)
        np.testing.assert_allclose(found, case.run(one_batch(21), None), rtol=2e-6, atol=1e-6)
        assert np.isnan(found[[3, 4], [1, 0]]).all() and np.nanmax(np.abs(found)) <= np.float32(0.49)


@pytest.mark.parametrize("maker", ["norm", "gated", "limited", "single", "nothing"])
@pytest.mark.parametrize("width", [32, 96, 288, 544])
def test_bytes_for_a_linear_come_from_whoever_made_its_input(maker: str, width: int) -> None:
    """Weights of three kinds read one input; and its bytes are made again after it has changed."""
    both, mid = Buffer("x", 2 * width), Buffer("mid", width).view()
    source = both.view(0, width)
    first: tuple[Op, ...] = {
        "norm": (Norm(source, "n", mid, 1e-5),),
        "gated": (GatedActivation(source, both.view(width), mid),),
        "limited": (LimitedActivation(source, both.view(width), mid, 1.5),),
        "single": (Activation(source, mid, "relu2"),),
        "nothing": (),
    }[maker]
    given = mid if first else source
    y = Buffer("y", 4 * 24)
    outs = [y.view(24 * i, 24) for i in range(4)]
    kinds = dict(zip("abc", ("Q4_1", "Q8_0", "F32"), strict=True))
    weights = {name: random_weight(name, quant, 24, width, seed=ord(name)) for name, quant in kinds.items()}
    weights["n"] = floats("n", normal(width))
    changed = Norm(given, None, given, 1e-5)
    ops = (*first, Linear(given, ("a", "b", "c"), tuple(outs[:3])), changed, Linear(given, ("b",), (outs[3],)))
    if maker != "norm":
        del weights["n"]
    x = normal(19, 2 * width, seed=5)
    found = Case(ops, x, y.view(), weights).run(one_batch(19), 2)
    before = Case(first, x, given, {k: v for k, v in weights.items() if k == "n"}).run(one_batch(19))
    after = Case((*first, changed), x, given, {k: v for k, v in weights.items() if k == "n"}).run(one_batch(19))
    for name, out, values in (("a", 0, before), ("b", 1, before), ("c", 2, before), ("b", 3, after)):
        seen = values.astype(np.float64) if name == "c" else as_bytes_and_back(values)
        assert nmse(found[:, 24 * out : 24 * out + 24], seen @ dequantised(weights[name]).T) < 1e-10


@pytest.mark.parametrize("kind", ["norm", "heads", "gated"])
def test_neither_batch_nor_threads_change_a_bit(kind: str) -> None:
    made = {
        "norm": lambda: norm_case(100, 1, True, True),
        "heads": lambda: heads_case(3, 80, 40, False, True),
        "gated": lambda: gated_case(300, "silu", False),
    }
    case = made[kind]()
    found = case.run(one_batch(21))
    for threads in (2, 3):
        assert np.array_equal(case.run(one_batch(21), threads), found)
    assert np.array_equal(case.run(singly(one_batch(21)), 3), found)
