"""Weights with factors beside them (FP8 and MXFP4 of safetensors) in every op that takes weights, against the reference backend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lacewing.backends.batch import StepLimits
from lacewing.program.ops import Buffer, Embed, ExpertLinear, HeadLinear, Linear, Logits, Op, Route
from lacewing.program.program import Program
from tests.backends.cpu.single_ops import Case, MappedWeight, floats, normal, one_batch, scaled_weight
from tests.backends.webgpu.single_ops import CODES, FLOATS, backend, error, run_step

EXPERTS, ACTIVE, ROWS, WIDTH = 6, 2, 44, 96
KINDS = {"block": ("F8_E4M3", (16, 32), "F32"), "odd": ("F8_E4M3", (5, 7), "BF16"), "mxfp4": ("F4_E2M1", (1, 32), "F8_E8M0")}


def weight_of(name: str, kind: str, *shape: int, apart: bool = False) -> MappedWeight:
    """`apart`: each index of the first axis is in a place of its own."""
    quant, block, factors = KINDS[kind]
    weight = scaled_weight(name, quant, shape, block, 5, factors)
    return replace(in_pieces(weight), scales=in_pieces(weight.scales)) if apart and weight.scales else weight


def in_pieces(weight: MappedWeight) -> MappedWeight:
    pieces = tuple(part.copy() for part in weight.data.reshape(weight.shape[0], -1))
    scales, block = weight.scales, weight.scale_block
    return MappedWeight(weight.name, weight.shape, weight.quant, weight.data, pieces, scales, block)


def limit(kind: str, variant: str) -> float:
    """FP8 with odd blocks becomes F16, which rounds; activations of MXFP4 are bytes where the variant says so."""
    return 1e-6 if kind != "mxfp4" else 5e-4 if variant == CODES else 1e-7


@pytest.mark.parametrize("variant", [FLOATS, CODES])
@pytest.mark.parametrize("kind", KINDS)
def test_linear(kind: str, variant: str) -> None:
    """Two weights of an op, of which each has its own factors."""
    x, outs = Buffer("x", WIDTH).view(), (Buffer("a", 24).view(), Buffer("b", 40).view())
    weights = {name: weight_of(name, kind, out.width, WIDTH) for name, out in zip("vw", outs, strict=True)}
    for out in outs:
        case = Case((Linear(x, tuple(weights), outs),), normal(10, WIDTH), out, weights)
        assert error(case, one_batch(10), variant) < limit(kind, variant)


@pytest.mark.parametrize("kind", KINDS)
def test_embedding(kind: str) -> None:
    table, out = weight_of("table", kind, WIDTH, WIDTH), Buffer("out", WIDTH).view()
    case = Case((Embed("table", out),), np.zeros((20, 8), np.float32), out, {"table": table})
    assert error(case, one_batch(20), FLOATS) < (1e-7 if kind == "mxfp4" else 1e-6)


@pytest.mark.parametrize("shape", ["stacked", "apart", "turned"])
@pytest.mark.parametrize(("kind", "variant"), [("block", FLOATS), ("mxfp4", FLOATS), ("mxfp4", CODES)])
def test_experts(kind: str, variant: str, shape: str) -> None:
    if (kind, variant, shape) == ("mxfp4", CODES, "turned"):
        variant = FLOATS  # it becomes F16
    size = (WIDTH, ROWS) if shape == "turned" else (ROWS, WIDTH)
    ids, chosen, whole = Buffer("ids", ACTIVE).view(), Buffer("chosen", ACTIVE).view(), Buffer("x", WIDTH + EXPERTS)
    weights = {"w": weight_of("w", kind, EXPERTS, *size, apart=shape == "apart")}
    out = Buffer("hidden", ACTIVE * ROWS).view()
    ops: tuple[Op, ...] = (
        Route(whole.view(WIDTH), ids, chosen),
        ExpertLinear(whole.view(0, WIDTH), ids, ("w",), (out,), transposed=shape == "turned"),
    )
    case = Case(ops, normal(11, WIDTH + EXPERTS, seed=3), out, weights)
    assert error(case, one_batch(11), variant) < (1e-6 if shape == "turned" else limit(kind, variant))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("kind", ["block", "odd"])
def test_heads(kind: str, turned: bool) -> None:
    heads, rest, rows = 4, 32, 64
    weight = weight_of("w", kind, heads, *((WIDTH, rows) if turned else (rows, WIDTH)), apart=True)
    x, out = Buffer("x", heads * (WIDTH + rest)).view(), Buffer("out", heads * (rows + rest)).view()
    case = Case((HeadLinear(x, "w", out, heads, turned),), normal(9, x.width, seed=3), out, {"w": weight})
    assert error(case, one_batch(9), FLOATS) < 1e-6


def test_bytes_that_are_no_numbers() -> None:
    """They make the outputs of their rows none, and of no other."""
    weight = weight_of("w", "block", 64, 64)
    weight.data.reshape(64, 64)[[3, 17], [0, 63]] = 0x7F, 0xFF
    weights = {"rows": floats("rows", normal(64, 64)), "w": weight}
    x = Buffer("x", 64).view()
    program = Program((Embed("rows", x), Logits(x, "w")), {name: each.shape for name, each in weights.items()}, (), 64)
    step = backend(CODES).compile(program, weights, StepLimits(64, 64))
    found = np.isnan(run_step(step, one_batch(3)))
    assert found[:, [3, 17]].all() and found.sum() == 6
    step.close()
