"""FP8 and MXFP4 of safetensors on the CPU: every op against the reference backend, and the same bits however the work is cut."""

from dataclasses import replace

import numpy as np
import pytest

from lacewing.backends.batch import Batch, StepLimits
from lacewing.backends.cpu import CpuBackend
from lacewing.backends.cpu.isa import host_isa
from lacewing.errors import UnsupportedModelError
from lacewing.program.ops import Buffer, Embed, ExpertLinear, HeadLinear, Linear, Logits, Op, Route
from lacewing.program.program import Program
from tests.backends.cpu.checks import check_against_reference
from tests.backends.cpu.single_ops import Batch as Fed
from tests.backends.cpu.single_ops import Case, ScaledWeight, floats, logits, nmse, normal, one_batch, scaled_weight, singly
from tests.models.running import MappedWeight

LANES = host_isa().lanes
# blocks of DeepSeek; of others; that are no whole registers; one for the whole weight; one for each row; MXFP4
BLOCKS = {
    "block": ("F8_E4M3", (128, 128)),
    "small": ("F8_E4M3", (8, 16)),
    "odd": ("F8_E4M3", (5, 7)),
    "whole": ("F8_E4M3", None),
    "channels": ("F8_E4M3", (1, 0)),
    "mxfp4": ("F4_E2M1", (1, 32)),
}


def weight_of(name: str, kind: str, *shape: int, seed: int = 0, factors: str = "F32") -> ScaledWeight:
    quant, block = BLOCKS[kind]
    rows, columns = shape[-2:] if block is None else (block[0], block[1] or shape[-1])
    return scaled_weight(name, quant, shape, (rows, columns), seed, "F8_E8M0" if kind == "mxfp4" else factors)


def sizes(kind: str) -> list[tuple[int, int]]:
    """Rows and columns of weights."""
    if kind == "mxfp4":
        return [(1, 32), (LANES + 3, 96), (2 * LANES, 320), (6, 2112)]
    return [(1, 5), (3, LANES), (LANES + 3, 3 * LANES + 3), (131, 300), (2 * LANES, 256), (6, 2101)]


@pytest.mark.parametrize("kind", BLOCKS)
def test_linear_equals_the_reference_and_itself_in_any_batch(kind: str) -> None:
    for rows, width in sizes(kind):
        y = Buffer("y", rows).view()
        ops = (Linear(Buffer("x", width).view(), ("w",), (y,), ("b",)),)
        weights = {"w": weight_of("w", kind, rows, width), "b": floats("b", normal(rows, seed=1))}
        case = Case(ops, normal(13, width, seed=2), y, weights)
        found = check_against_reference(case, one_batch(13), 5e-6)
        assert nmse(found, case.run(one_batch(13), None)) < 1e-11
        assert np.array_equal(case.run(singly(one_batch(13)), 2), found)
        parts = [([0] * n, list(range(s, s + n))) for s, n in ((0, 2), (2, 5), (7, 1), (8, 5))]
        assert np.array_equal(case.run(parts, 3), found)


@pytest.mark.parametrize("factors", ["BF16", "F16", "F8_E8M0"])
def test_factors_of_other_types(factors: str) -> None:
    y = Buffer("y", 40).view()
    weights = {"w": weight_of("w", "small", 40, 64, factors=factors)}
    check_against_reference(Case((Linear(Buffer("x", 64).view(), ("w",), (y,)),), normal(3, 64), y, weights), one_batch(3), 5e-6)


@pytest.mark.parametrize("kind", BLOCKS)
def test_embedding_and_logits(kind: str) -> None:
    width, vocab = 96, 3 * LANES + 3
    table, out = weight_of("table", kind, width, width), Buffer("out", width).view()
    found = Case((Embed("table", out, 1.75),), np.zeros((20, 8), np.float32), out, {"table": table}).run(one_batch(20), 2)
    np.testing.assert_array_equal(found, table.values()[:20] * np.float32(1.75))
    weight, x = weight_of("out", kind, vocab, width), normal(vocab, width)
    for outputs in ([], [vocab - 1], [5, 0, 5, 11, 2]):
        given = logits(x, weight, outputs, 2, 0.5, 3.0)
        expected = 3 * np.tanh(0.5 * (x[outputs] @ weight.values().T.astype(np.float64)) / 3)
        assert given.shape == expected.shape
        assert not outputs or nmse(given, expected) < 1e-10


@pytest.mark.parametrize("kind", BLOCKS)
def test_rows_that_come_as_embeddings_stay(kind: str) -> None:
    table, out = weight_of("table", kind, 96, 96), Buffer("out", 96).view()
    weights = {"table": table, "identity": floats("identity", np.eye(96, dtype=np.float32))}
    program = Program((Embed("table", out), Logits(out, "identity")), {name: each.shape for name, each in weights.items()}, (), 96)
    step = CpuBackend(2).compile(program, weights, StepLimits(8, 8))
    rows = normal(2, 96)
    given = replace(Batch.of([5, -2, -1, 9], 0, range(4)), embeddings=rows)
    np.testing.assert_array_equal(step.run(given), [table.values()[5], rows[1], rows[0], table.values()[9]])
    step.close()


@pytest.mark.parametrize("quant", ["F8_E4M3", "F4_E2M1"])
def test_every_byte_and_wild_factors_are_the_reference_s(quant: str) -> None:
    """NaN where the byte or the factor is; the rows without one keep their bits."""
    rows, width = 256, 256
    weight = scaled_weight("w", quant, (rows, width), (1, 32), 0, "F32" if quant == "F8_E4M3" else "F8_E8M0")
    every = np.resize(np.arange(256, dtype=np.uint8), (rows, quant_bytes(weight)))
    if quant == "F8_E4M3":
        every[every & 0x7F == 0x7F] = 0  # a NaN would spread over the product that the view is looked at by
    weight.data[:] = every.reshape(-1)
    out = Buffer("out", width).view()
    found = Case((Embed("w", out),), np.zeros((8, 8), np.float32), out, {"w": weight}).run(one_batch(8))
    np.testing.assert_array_equal(found, weight.values()[:8])
    if quant == "F4_E2M1":
        return
    clean = scaled_weight("w", quant, (64, width), (1, 32))
    broken = scaled_weight("w", quant, (64, width), (1, 32))
    broken.data.reshape(64, width)[[3, 17], [0, width - 1]] = (0x7F, 0xFF)
    assert broken.scales is not None
    broken.scales.data.view(np.float32)[40 * width // 32] = np.nan
    for outputs in ([1], [0, 5, 2, 7, 9]):
        x = normal(64, width)
        whole, given = logits(x, clean, outputs), logits(x, broken, outputs)
        assert np.isnan(given[:, [3, 17, 40]]).all()
        kept = [row for row in range(64) if row not in (3, 17, 40)]
        assert np.array_equal(given[:, kept], whole[:, kept])


def quant_bytes(weight: MappedWeight) -> int:
    return weight.quant.row_bytes(weight.shape[-1])


EXPERTS, ACTIVE, ROWS, WIDTH = 6, 2, 44, 96
IDS, CHOSEN = Buffer("ids", ACTIVE).view(), Buffer("chosen", ACTIVE).view()
BATCHES = ([13], [1] * 13, [2, 8, 3])


def batches(counts: list[int]) -> list[Fed]:
    starts = np.cumsum([0, *counts])
    return [([0] * count, list(range(start, start + count))) for start, count in zip(starts, counts, strict=False)]


def in_pieces(weight: MappedWeight) -> MappedWeight:
    """As checkpoints with one tensor for each expert have it."""
    assert weight.scales is not None
    scales = MappedWeight("s", weight.scales.shape, weight.scales.quant, weight.scales.data, apart(weight.scales))
    return MappedWeight(weight.name, weight.shape, weight.quant, weight.data, apart(weight), scales, weight.scale_block)


def apart(weight: MappedWeight) -> tuple[np.ndarray, ...]:
    return tuple(part.copy() for part in weight.data.reshape(weight.shape[0], -1))


SHAPES = ("shared", "separate", "halves", "interleaved", "pieces", "halves-turned", "interleaved-turned")
CASES = [(kind, shape) for kind in BLOCKS for shape in SHAPES if kind != "mxfp4" or not shape.endswith("turned")]


@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_experts_equal_the_reference_and_themselves_in_any_batch(kind: str, shape: str) -> None:
    turned, split = shape.endswith("turned"), 2 if shape.startswith(("halves", "inter")) else 1
    size = (WIDTH, split * ROWS) if turned else (split * ROWS, WIDTH)
    weight = weight_of("w", kind, EXPERTS, *size)
    weights = {"w": in_pieces(weight) if shape == "pieces" else weight, "b": floats("b", normal(EXPERTS, split * ROWS, seed=7))}
    whole = Buffer("x", WIDTH + EXPERTS)
    ops: tuple[Op, ...] = (Route(whole.view(WIDTH), IDS, CHOSEN),)
    source = whole.view(0, WIDTH)
    if shape == "separate":  # each active expert has its own part: made by a linear of the same kind
        weights |= {"a": weight_of("a", kind, EXPERTS, WIDTH, WIDTH, seed=9)}
        spread = Buffer("spread", ACTIVE * WIDTH).view()
        ops += (ExpertLinear(source, IDS, ("a",), (spread,)),)
        source = spread
    outs = tuple(Buffer(name, ACTIVE * ROWS).view() for name in ("hidden", "up")[:split])
    options = {"separate": shape == "separate", "interleaved": shape.startswith("inter"), "transposed": turned}
    ops += (ExpertLinear(source, IDS, ("w",), outs, ("b",), factor=CHOSEN, **options),)
    for out in outs:
        case = Case(ops, normal(13, WIDTH + EXPERTS, seed=3), out, weights)
        results = [case.run(batches(counts), threads=1 + len(counts) % 3) for counts in BATCHES]
        assert nmse(results[0], case.run(one_batch(13), threads=None)) < 1e-10
        for found in results[1:]:
            np.testing.assert_array_equal(found, results[0])


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("kind", ["block", "small", "odd", "whole"])
def test_a_linear_for_each_head_equals_the_reference(kind: str, turned: bool) -> None:
    heads, rest, rows = 4, 32, 64
    weight = in_pieces(weight_of("w", kind, heads, *((WIDTH, rows) if turned else (rows, WIDTH))))
    x, out = Buffer("x", heads * (WIDTH + rest)).view(), Buffer("out", heads * (rows + rest)).view()
    case = Case((HeadLinear(x, "w", out, heads, turned),), normal(13, x.width, seed=3), out, {"w": weight})
    whole = case.run(one_batch(13), threads=2)
    assert nmse(whole, case.run(one_batch(13), threads=None)) < 1e-10
    np.testing.assert_array_equal(whole, case.run(batches([2, 8, 3]), threads=3))


def test_what_no_kernel_is_there_for_is_refused() -> None:
    out = Buffer("out", ACTIVE * 64).view()
    x = normal(2, WIDTH + EXPERTS)
    route = Route(Buffer("x", WIDTH + EXPERTS).view(WIDTH), IDS, CHOSEN)
    turned = ExpertLinear(Buffer("x", WIDTH + EXPERTS).view(0, WIDTH), IDS, ("w",), (out,), transposed=True)
    weight = weight_of("w", "mxfp4", EXPERTS, WIDTH, 64)
    with pytest.raises(UnsupportedModelError, match=r"F4_E2M1 stored \(outputs, inputs\) only"):
        Case((route, turned), x, out, {"w": weight}).run(one_batch(2))
    y = Buffer("y", 64).view()
    linear = Linear(Buffer("x", WIDTH).view(), ("w",), (y,))
    for quant, block, factors, problem in (
        ("BF16", (8, 16), "F32", "BF16 with factors"),
        ("F4_E2M1", (1, 16), "F8_E8M0", "each 32"),
    ):
        weight = scaled_weight("w", quant, (64, WIDTH), block, 0, factors)
        with pytest.raises(UnsupportedModelError, match=problem):
            Case((linear,), normal(2, WIDTH), y, {"w": weight}).run(one_batch(2))
    wide = MappedWeight("w", (1, 100_002), weight_of("w", "block", 1, 2).quant, np.zeros(100_002, np.uint8))
    with pytest.raises(UnsupportedModelError, match="up to 100000 values"):
        ops = (Linear(Buffer("x", 100_002).view(), ("w",), (Buffer("y", 1).view(),)),)
        Case(ops, np.zeros((1, 100_002), np.float32), Buffer("y", 1).view(), {"w": wide}).run(one_batch(1))


def test_without_factors_values_are_what_the_bytes_say() -> None:
    plain = scaled_weight("w", "F8_E4M3", (20, 40), (20, 40))
    bare = MappedWeight("w", plain.shape, plain.quant, plain.data)
    y = Buffer("y", 20).view()
    check_against_reference(Case((Linear(Buffer("x", 40).view(), ("w",), (y,)),), normal(5, 40), y, {"w": bare}), one_batch(5))
