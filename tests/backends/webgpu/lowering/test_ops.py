"""Dense ops alone and in the rows in which kernels are fused, in all four variants, for few tokens and many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from lacewing.backends.batch import StepLimits
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.program.check import ACTIVATIONS, SINGLE_ACTIVATIONS
from lacewing.program.ops import (
    Activation,
    AddNorm,
    Buffer,
    ClampedActivation,
    Embed,
    GatedActivation,
    Hadamard,
    LimitedActivation,
    Linear,
    Logits,
    Norm,
    Op,
    Rope,
    RopeSpec,
    ScaleByPosition,
    ShortConvolution,
    View,
)
from lacewing.program.program import Program
from lacewing.program.states import FixedState
from tests import paged
from tests.backends.cpu.single_ops import CHUNK, Batch, Case, MappedWeight, floats, nmse, normal, one_batch, random_weight
from tests.backends.webgpu.lowering.test_attention import attention_case
from tests.backends.webgpu.single_ops import CODES, LIMIT, VARIANTS, backend, error, expected, run, run_step

FEW_AND_MANY = ([([0], [3])], one_batch(5, 7), one_batch(41))
CONSTANTS = {"xielu": (0.9, 1.3, 0.5, -1e-6)}
FREQUENCIES = tuple(float(10000 ** (-i / 8)) for i in range(8))


def check(ops: Sequence[Op], x: np.ndarray, out: View, weights: Sequence[MappedWeight], variant: str, exact: bool = True) -> None:
    """`exact`: nothing here is computed from bytes, in no variant."""
    case = Case(tuple(ops), x, out, {weight.name: weight for weight in weights})
    step = case.step(backend(variant), 128)  # type: ignore[arg-type]  # any backend will do
    for batches in FEW_AND_MANY:
        found = nmse(run_step(step, batches)[:, : out.width], expected(case, batches, 128))
        assert found < (1e-7 if exact else LIMIT[variant]), f"{batches}: {found}"
    step.close()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("width", "heads"), [(2080, 1), (100, 1), (96, 6)])
def test_norm(width: int, heads: int, variant: str) -> None:
    x, weight = Buffer("x", width).view(), floats("w", normal(width // heads, seed=1))
    check([Norm(x, "w", x, 1e-5, heads, 1.0)], normal(41, width), x, [weight], variant)


def test_norm_of_heads_with_weights_of_their_own() -> None:
    """Also before a rotation, with which it is not joined."""
    x, weight = Buffer("x", 96).view(), floats("w", normal(96, seed=1))
    for more in ([], [Rope(x, 3, RopeSpec(FREQUENCIES))]):
        check([Norm(x, "w", x, 1e-5, 3, 1.0), *more], normal(41, 96), x, [weight], CODES)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("width", "heads"), [(2080, 1), (100, 1), (96, 6)])
def test_layer_norm(width: int, heads: int, variant: str) -> None:
    """Of values whose mean is not 0, alone and of a sum; a norm of heads is not joined with a rotation."""
    whole = Buffer("x", 2 * width)
    x, other, out = whole.view(0, width), whole.view(width), Buffer("out", width).view()
    weights = [floats(name, normal(width // heads, seed=seed)) for seed, name in enumerate("wb")]
    check([Norm(x, "w", x, 1e-5, heads, 0.0, "b", True)], normal(41, 2 * width) + 1, x, weights, variant)
    check([Norm(x, None, out, 1e-5, heads, centred=True)], normal(41, 2 * width) + 1, out, [], variant)
    if heads == 1:
        check([AddNorm(x, other, "w", out, 1e-5, 0.0, 0.5, "b", True)], normal(41, 2 * width) + 1, out, weights, variant)
    else:
        rope = Rope(x, heads, RopeSpec(FREQUENCIES, 1.0, True))
        check([Norm(x, "w", x, 1e-5, heads, 0.0, "b", True), rope], normal(41, 2 * width) + 1, x, weights, variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_norm_adds_to_the_residual(variant: str) -> None:
    """Two in a row: the second sees what the first added."""
    whole = Buffer("x", 256)
    stream, other, out = whole.view(0, 128), whole.view(128, 128), Buffer("out", 128).view()
    ops = [AddNorm(stream, other, "w", out, 1e-6, scale=0.22), AddNorm(stream, out, None, out, 1e-6)]
    check(ops, normal(41, 256), out, [floats("w", normal(128, seed=1))], variant)
    check(ops, normal(41, 256), stream, [floats("w", normal(128, seed=1))], variant)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("adjacent", [False, True])
@pytest.mark.parametrize("start", [0, 8])
def test_rope(start: int, adjacent: bool, variant: str) -> None:
    """Part of a head, and of a buffer, turns; the rest stays."""
    whole = Buffer("x", 8 + 3 * 32)
    heads = whole.view(8, 96)
    check([Rope(heads, 3, RopeSpec(FREQUENCIES, 1.25, adjacent), start)], normal(41, 104), whole.view(), [], variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_rope_far_into_a_text(variant: str) -> None:
    """Positions of a million and angles of as many radians, in float32 as the reference."""
    x = Buffer("x", 16).view()
    case = Case((Rope(x, 1, RopeSpec(FREQUENCIES)),), normal(3, 16), x, {})
    batches = [([0] * 2, [100_000, 100_001]), ([0], [1_000_000])]
    assert nmse(run(case, batches, variant, 2**20), expected(case, batches, 2**20)) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_scale_by_position(variant: str) -> None:
    x = Buffer("x", 48).view()
    check([ScaleByPosition(x, 0.3, 4, 1)], normal(41, 48), x, [], variant)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("width", "size"), [(32, 32), (96, 32), (128, 128), (256, 256), (1024, 1024)])
def test_hadamard(width: int, size: int, variant: str) -> None:
    x = Buffer("x", 2 * width).view()
    check([Hadamard(x, 2, size)], normal(41, 2 * width), x, [], variant)
    check([Rope(x, 2, RopeSpec(FREQUENCIES)), Hadamard(x, 2, size)], normal(41, 2 * width), x, [], variant)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("quant", ["F32", "F16", "Q4_K", "Q8_0"])
def test_embed(quant: str, variant: str) -> None:
    """Rows of a table, times a factor; a table is never computed with as bytes."""
    x = Buffer("x", 256).view()
    program_case = Case(
        (Embed("table", x, 3.5),), np.zeros((41, 256), np.float32), x, {"table": random_weight("table", quant, 256, 256)}
    )
    batches = one_batch(41)
    assert nmse(run(program_case, batches, variant), expected(program_case, batches)) < 1e-12


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gated_activation(activation: str, variant: str) -> None:
    whole = Buffer("x", 2 * 96)
    gate, up = whole.view(0, 96), whole.view(96, 96)
    check([GatedActivation(gate, up, gate, activation)], 4 * normal(41, 192), gate, [], variant)
    check([GatedActivation(gate, up, up, activation)], 4 * normal(41, 192), up, [], variant)


@pytest.mark.parametrize("parts", [1, 4])
def test_a_gate_for_every_part(parts: int) -> None:
    """Also of a linear that makes both, which must not be joined as gates of every column are."""
    x, whole = Buffer("x", 64).view(), Buffer("whole", 32 + 96)
    gate, up = whole.view(0, parts), whole.view(32, 96)
    weights = [random_weight(name, "Q8_0", view.width, 64) for name, view in (("g", gate), ("u", up))]
    ops = [Linear(x, ("g", "u"), (gate, up)), GatedActivation(gate, up, up, "sigmoid")]
    check(ops, normal(41, 64), up, weights, CODES, exact=False)


@pytest.mark.parametrize("function", SINGLE_ACTIVATIONS)
def test_activation(function: str) -> None:
    """In place and not, four values at once and one by one."""
    for width in (96, 33):
        x = Buffer("x", width).view()
        for out in (x, Buffer("out", width).view()):
            check([Activation(x, out, function, CONSTANTS.get(function, ()))], 4 * normal(41, width), out, [], CODES)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("scale", [1e4, 1e-4])
def test_activations_of_any_size(scale: float, variant: str) -> None:
    """Nothing overflows, nothing vanishes."""
    whole = Buffer("x", 128)
    gate, up = whole.view(0, 64), whole.view(64, 64)
    check([GatedActivation(gate, up, gate)], scale * normal(41, 128), gate, [], variant)
    x = Buffer("x", 64).view()
    check([Norm(x, None, x, 1e-6)], scale * normal(41, 64), x, [], variant)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("quant", "width"), [("F32", 64), ("F32", 50), ("BF16", 96), ("Q4_0", 96), ("Q6_K", 512)])
def test_linear(quant: str, width: int, variant: str) -> None:
    """Several outputs of odd heights from one input, with biases for some."""
    x, out = Buffer("x", width).view(), Buffer("out", 37 + 8 + 3)
    parts = (out.view(0, 37), out.view(37, 8), out.view(45, 3))
    names = ("a", "b", "c")
    weights = [
        random_weight(name, quant, part.width, width, seed) for seed, (name, part) in enumerate(zip(names, parts, strict=True))
    ]
    op = Linear(x, names, parts, ("bias", None, None))
    check([op], normal(41, width), out.view(), [*weights, floats("bias", normal(37, seed=9))], variant, quant in ("F32", "BF16"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_feed_forward_block(variant: str) -> None:
    """Norm, gate and up, activation, down, and the norm that adds: kernels hand their bytes on, and some are one."""
    stream, normed, both = Buffer("x", 256).view(), Buffer("n", 256).view(), Buffer("f", 2 * 288)
    gate, up, down = both.view(0, 288), both.view(288, 288), Buffer("d", 256).view()
    ops = [
        Norm(stream, "norm", normed, 1e-5),
        Linear(normed, ("gate", "up"), (gate, up)),
        GatedActivation(gate, up, gate),
        Linear(gate, ("down",), (down,)),
        AddNorm(stream, down, "norm", normed, 1e-5),
        Linear(normed, ("head",), (down,)),
    ]
    shapes = {"gate": (288, 256), "up": (288, 256), "down": (256, 288), "head": (256, 256)}
    weights = [random_weight(name, "Q8_0", *shape, seed=3) for name, shape in shapes.items()]
    scaled = [floats(one.name, one.quant.dequantise(one.data).reshape(one.shape) * 0.02) for one in weights]
    norm = floats("norm", 1 + 0.1 * normal(256, seed=5))
    check(ops, normal(41, 256), down, [*scaled, norm], variant)  # floats: nothing is lost
    check(ops, normal(41, 256), down, [*weights, norm], variant, exact=False)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("quant", ["F32", "Q8_0"])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.25, 3.0)])
def test_logits(scale: float, softcap: float | None, quant: str, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen rows in any order, none, one twice, and so many that they come in several passes."""
    monkeypatch.setattr("lacewing.backends.webgpu.lowering.compiler.LOGIT_BYTES", 4 * 300 * 7)  # seven rows a pass
    view, x, weight = Buffer("x", 64).view(), normal(300, 64), random_weight("out", quant, 300, 64, seed=4)
    weights, tokens = {"rows": floats("rows", x), "out": weight}, np.arange(40, dtype=np.int32)
    if softcap:
        weights["bias"] = floats("bias", normal(300, seed=9))
    shapes = {name: one.shape for name, one in weights.items()}
    program = Program((Embed("rows", view), Logits(view, "out", scale, softcap, "bias" if softcap else None)), shapes, (), 300)
    steps = [each.compile(program, weights, StepLimits(CHUNK, CHUNK)) for each in (backend(variant), ReferenceBackend())]
    for outputs in ([39], [], [5, 5, 0], [*range(40)], [*range(39, 0, -2)]):
        found, wanted = (paged.run(step, tokens, 0 * tokens, tokens, outputs).copy() for step in steps)
        assert found.shape == wanted.shape == (len(outputs), 300)
        if outputs:
            assert nmse(found, wanted) < (1e-7 if quant == "F32" else LIMIT[variant])
    steps[0].close()


@pytest.mark.parametrize("in_place", [False, True])
def test_short_convolution(in_place: bool) -> None:
    """Pieces of several rows, shorter than what is remembered and longer; a sequence begins anew; with a bias and without."""
    width, taps = 70, 4
    x = Buffer("x", width).view()
    out = x if in_place else Buffer("out", width).view()
    weights = {"w": floats("w", normal(width, taps, seed=4)), "b": floats("b", normal(width, seed=5))}
    batches: list[Batch] = [([0] * 5 + [2], [0, 1, 2, 3, 4, 0]), ([2, 2, 0], [1, 2, 5]), ([1] * 20, list(range(20)))]
    batches += [([0, 1, 2], [6, 20, 3]), ([0] * 2, [0, 1])]
    for bias in (None, "b"):
        op = ShortConvolution(x, "w", out, 0, bias)
        used = {name: weight for name, weight in weights.items() if name in op.weight_names}
        case = Case((op,), normal(34, width), out, used, (FixedState((("conv", (taps - 1, width)),)),))
        assert error(case, batches, rows=3) < 1e-13


@pytest.mark.parametrize("variant", VARIANTS)
def test_infinities_and_nan_stay_visible(variant: str) -> None:
    """What has overflowed must not come out as an ordinary number; other tokens do not notice."""
    x, out = Buffer("x", 64).view(), Buffer("out", 32).view()
    rows = normal(3, 64)
    rows[0, 5], rows[2, 40] = np.nan, np.inf
    for quant in ("F32", "Q8_0"):
        case = Case((Linear(x, ("w",), (out,)),), rows, out, {"w": random_weight("w", quant, 32, 64)})
        found = run(case, one_batch(3), variant)
        assert not np.isfinite(found[0]).any() and not np.isfinite(found[2]).any()
        assert np.isfinite(found[1]).all()


def broken_cases() -> dict[str, Case]:
    """Ops that could lose a NaN among numbers: sums, largest values, limits, choices."""
    gate, up = (Buffer("x", 128).view(start, 64) for start in (0, 64))
    norms = {f"norm of {w}": Case((Norm(Buffer("x", w).view(), None, Buffer("x", w).view(), 1e-5, h),), normal(24, w),
             Buffer("x", w).view(), {}) for w, h in ((64, 1), (100, 1), (96, 6))}  # fmt: skip
    activations = {name: Case((op,), normal(24, 128), gate, {}) for name, op in (
        ("silu", GatedActivation(gate, up, gate)), ("gelu", GatedActivation(gate, up, gate, "gelu_tanh")),
        ("none", GatedActivation(gate, up, gate, "none")), ("clamped", ClampedActivation(gate, up, gate, 1.7, 7.0)),
        ("limited", LimitedActivation(gate, up, gate, 0.7)),
        *((f"single {name}", Activation(gate, gate, name, CONSTANTS.get(name, ()))) for name in SINGLE_ACTIVATIONS),
    )}  # fmt: skip
    capped = attention_case(24, 4, 2, 32, 32, softcap=5.0)
    return norms | activations | {f"attention, {what}": replace(capped, x=capped.x) for what in ("queries", "keys", "values")}


@pytest.mark.parametrize("name", broken_cases())
def test_a_nan_shows_after_every_op(name: str) -> None:
    """In its own row, of a few tokens and of many."""
    case, column = broken_cases()[name], {"keys": 128 + 1, "values": 192 + 3}.get(name.split(", ")[-1], 1)
    case.x[5, column] = np.nan
    for batches in ([([0] * 3, [0, 1, 2]), ([0] * 5, [3, 4, 5, 6, 7])], one_batch(20)):
        found = run(case, batches, CODES)
        assert not np.isfinite(found[5]).all()
        if len(batches) > 1:
            assert np.isfinite(found[:3]).all()


def test_the_same_bits_every_time() -> None:
    """A step run twice, and a step compiled anew."""
    x, out = Buffer("x", 256).view(), Buffer("out", 100).view()
    case = Case(
        (Norm(x, None, x, 1e-5), Linear(x, ("w",), (out,))), normal(41, 256), out, {"w": random_weight("w", "Q4_K", 100, 256)}
    )
    for batches in FEW_AND_MANY:
        assert np.array_equal(run(case, batches, CODES), run(case, batches, CODES))


@pytest.mark.parametrize(("quant", "rows", "width"), [("F32", 128, 256), ("F32", 37, 75), ("BF16", 70, 416), ("F32", 600, 64)])
def test_few_rows_of_plain_floats_and_many_tokens(quant: str, rows: int, width: int) -> None:
    """A router's product has small tiles; rows, tokens and columns that fill no tile, and more rows, whose tiles are large."""
    y, weights = Buffer("y", rows).view(), {"w": random_weight("w", quant, rows, width)}
    case = Case((Linear(Buffer("x", width).view(), ("w",), (y,)),), normal(45, width, seed=3), y, weights)
    step = case.step(backend(CODES), 64)  # type: ignore[arg-type]  # any backend will do
    try:
        labels = {each.label for each in step._dispatches}  # type: ignore[attr-defined]
        assert ("gemm_float_narrow" in labels) == (rows <= 512)
        found = run_step(step, one_batch(45))[:, :rows]
    finally:
        step.close()
    assert nmse(found, expected(case, one_batch(45))) < 1e-11
