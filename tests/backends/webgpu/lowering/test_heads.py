"""Norms of heads, rotations, scales by position, keys and values on WebGPU, alone and in one dispatch; matrices of heads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lacewing.backends.gpu.run import Run
from lacewing.program.ops import (
    Attention,
    Buffer,
    HeadLinear,
    Norm,
    Op,
    Rope,
    RopeSpec,
    ScaleByPosition,
    View,
    WriteKeysValues,
)
from tests.backends.cpu.single_ops import Batch, Case, floats, normal, random_weight
from tests.backends.webgpu.single_ops import CODES, FLOATS, VARIANTS, backend, error, run_step
from tests.paged import paged

PLAIN = "none"
BATCHES: list[Batch] = [([0], [0]), ([0] * 5, [1, 2, 3, 4, 5]), ([1, 1, 0], [0, 1, 6])]
COUNT = 9
HALF_TURN = RopeSpec(tuple(10000.0 ** (-i / 6) for i in range(6)), 1.1)
ADJACENT = RopeSpec(tuple(500.0 ** (-i / 8) for i in range(8)), 0.9, adjacent=True)


def program(kind: str, q: View, k: View) -> tuple[Op, ...]:
    """What architectures do with queries and keys before they store the keys; heads of 16, 4 and 2 of them."""
    norms = (Norm(q, "qn", q, 1e-6, 4, 1.0), Norm(k, "kn", k, 1e-6, 2, 1.0))
    ropes = (Rope(q, 4, HALF_TURN), Rope(k, 2, HALF_TURN))
    scale = ScaleByPosition(q, 0.3, 2, 1)
    turned = tuple(Norm(x, None, x, 1e-5, heads) for x, heads in ((q, 4), (k, 2)))
    adjacent = (Rope(q, 4, ADJACENT), Rope(k, 2, ADJACENT))
    whole = (Norm(q, "whole", q, 1e-6), Norm(k, "half", k, 1e-6))
    return {
        "plain": (), "ropes": ropes, "norms": (*norms, *ropes), "turned": (*adjacent, *turned, scale), "scaled": (scale,),
        "whole": (*whole, *ropes), "mixed": (Rope(q, 4, HALF_TURN, 4), Rope(k, 2, ADJACENT)),
    }[kind]  # fmt: skip


def heads_case(kind: str, dtype: str = "f16") -> Case:
    buffer, out = Buffer("x", 64 + 32 + 32), Buffer("out", 64).view()
    q, k, v = View(buffer, 0, 64), View(buffer, 64, 32), View(buffer, 96, 32)
    ops = (*program(kind, q, k), WriteKeysValues(k, v, 0), Attention(q, out, 0, 4, 2, 0.3))
    sizes = {"qn": 16, "kn": 16, "whole": 64, "half": 32}
    used = {op.weight for op in ops if isinstance(op, Norm)}
    weights = {name: floats(name, normal(size, seed=size)) for name, size in sizes.items() if name in used}
    return Case(ops, normal(COUNT, buffer.width), out, weights, (paged(2, 16, 16, dtype=dtype),))


def dispatches(case: Case, variant: str, tokens: int = 1) -> list[str]:
    step: Any = case.step(backend(variant), 64, 2)  # type: ignore[arg-type]
    found = [d.label for d in step.dispatches if d.grid(Run(tokens, tokens, 16, single=tokens == 1)) is not None]
    step.close()
    return found


@pytest.mark.parametrize("kind", ["plain", "ropes", "norms", "turned", "scaled", "whole", "mixed"])
def test_one_dispatch_before_attention(kind: str) -> None:
    variant = PLAIN if kind in ("norms", "scaled") else FLOATS
    assert error(heads_case(kind), BATCHES, variant, rows=2) < 1e-9
    for tokens in (1, 2):
        found = dispatches(heads_case(kind), variant, tokens)
        expected = (tokens > 1 or variant == PLAIN) + (kind == "whole")  # of one token the attention does the work itself
        assert found.count("heads") == expected
        assert sum(label.startswith("attention_decode") for label in found) == 1
        assert not {"rope", "norm"} & set(found)


@pytest.mark.parametrize("kind", ["norms", "turned"])
@pytest.mark.parametrize("dtype", ["f16", "f32"])
def test_a_token_alone_is_prepared_by_its_attention(kind: str, dtype: str) -> None:
    """In every split of the keys; the keys and values that it stores are those of the other kernel."""
    count = 262
    case = replace(heads_case(kind, dtype), x=normal(count, 128))
    batches: list[Batch] = [*([([0] * 52, list(range(s, s + 52))) for s in range(0, 260, 52)]), ([0], [260]), ([0], [261])]
    assert error(case, batches, CODES, 300) < 1e-9
    one: Any = case.step(backend(FLOATS), 300)  # type: ignore[arg-type]
    other: Any = case.step(backend(FLOATS), 300)  # type: ignore[arg-type]
    run_step(one, [([0], [position]) for position in range(9)])
    run_step(other, [([0] * 9, list(range(9)))])
    stored = (
        step.read(0, [0]).view(np.float16 if dtype == "f16" else np.float32).reshape(4, 128, 16)[:, :9] for step in (one, other)
    )
    np.testing.assert_allclose(*stored, rtol=2e-3, atol=1e-6)
    for step in (one, other):
        step.close()


def test_all_in_subgroups_and_in_float32() -> None:
    for kind in ("norms", "turned"):
        assert error(heads_case(kind, "f32"), BATCHES, CODES, rows=2) < 1e-9


def test_the_views_are_changed_too() -> None:
    """Whoever looks at queries or keys afterwards sees them turned."""
    case = heads_case("norms")
    buffer = case.ops[0].x.buffer  # type: ignore[attr-defined]
    assert error(replace(case, out=buffer.view()), BATCHES, FLOATS, rows=2) < 1e-9


def latent_case(split: bool) -> Case:
    """As latent attention has it: the row of keys in two parts, a product of heads between rotation and store."""
    heads, rank, turned, nope = 3, 32, 8, 16
    whole = Buffer("x", heads * (nope + turned) + rank + turned)
    q, keys = whole.view(0, heads * (nope + turned)), whole.view(heads * (nope + turned), rank + turned)
    compressed, rotated = whole.view(keys.start, rank), whole.view(keys.start + rank, turned)
    absorbed, out = Buffer("absorbed", heads * (rank + turned)).view(), Buffer("out", heads * rank).view()
    rope = RopeSpec(tuple(100.0 ** (-i / 4) for i in range(4)))
    first: tuple[Op, ...] = (Norm(compressed, "n", compressed, 1e-6), Rope(q, heads, rope, nope), Rope(rotated, 1, rope))
    if split:  # an op that is no part of the run
        first = (Norm(compressed, "n", compressed, 1e-6), Norm(q, None, absorbed.buffer.view(0, q.width), 1e-6), *first[1:])
    ops = (
        *first,
        HeadLinear(q, "w", absorbed, heads, True),
        WriteKeysValues(keys, None, 0),
        Attention(absorbed, out, 0, heads, 1, 0.2),
    )
    weights = {
        "n": floats("n", normal(rank, seed=4)),
        "w": replace(random_weight("w", "F32", heads * nope, rank), shape=(heads, nope, rank)),
    }
    return Case(ops, normal(COUNT, whole.width), out, weights, (paged(1, rank + turned, rank, latent=True),))


@pytest.mark.parametrize("split", [False, True])
def test_latent_attention(split: bool) -> None:
    case = latent_case(split)
    assert error(case, BATCHES, FLOATS, rows=2) < 1e-9
    found = [label for label in dispatches(case, FLOATS) if label in ("heads", "rope", "head_gemv")]
    assert found == (["heads", "head_gemv", "heads"] if split else ["heads", "head_gemv"])


def head_linear_case(heads: int, outputs: int, inputs: int, rest: int, transposed: bool, quant: str) -> Case:
    x, out = Buffer("x", heads * (inputs + rest)).view(), Buffer("out", heads * (outputs + rest)).view()
    shape = (heads, inputs, outputs) if transposed else (heads, outputs, inputs)
    weight = replace(random_weight("w", quant, heads * shape[1], shape[2]), shape=shape)
    return Case((HeadLinear(x, "w", out, heads, transposed),), normal(24, x.width, seed=2), out, {"w": weight})


@pytest.mark.parametrize(
    ("variant", "how", "limit"),
    [
        (PLAIN, (3, 40, 64, 4, False, "F32"), 1e-10),
        (CODES, (2, 36, 20, 3, False, "F16"), 1e-10),
        (FLOATS, (2, 72, 64, 8, False, "Q4_0"), 1e-10),
        (FLOATS, (2, 64, 48, 0, True, "BF16"), 1e-10),
        (FLOATS, (2, 64, 64, 8, True, "Q8_0"), 5e-4),  # blocks lie across: converted
    ],
    ids=str,
)
def test_matrices_of_heads(variant: str, how: tuple[int, int, int, int, bool, str], limit: float) -> None:
    batches: list[Batch] = [([0], [0]), ([0] * 3, [1, 2, 3]), ([0] * 20, list(range(4, 24)))]
    assert error(head_linear_case(*how), batches, variant) < limit


@pytest.mark.parametrize("variant", VARIANTS[:2])
def test_scale_by_position(variant: str) -> None:
    x = Buffer("x", 48).view()
    case = Case((ScaleByPosition(x, 0.1, 8192, 1),), normal(3, 48), x, {})
    assert error(case, [([0], [8190]), ([0], [8191]), ([0], [16383])], variant, 16384) < 1e-10
