"""Products with quantised weights for several tokens together: a token has the values that it has alone, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from lacewing.backends.batch import Batch, StepLimits
from lacewing.backends.webgpu.lowering import linear
from lacewing.program.ops import Buffer, Embed, GatedActivation, Linear, Logits
from lacewing.program.program import Program
from tests.backends.cpu.single_ops import Case, floats, nmse, normal, one_batch, random_weight, singly
from tests.backends.webgpu.single_ops import backend, expected, run
from tests.paged import with_pages

COUNTS = (2, 3, 4, 5, 8, 9, 13, 64)
# few groups; two teams a row, and a last workgroup that is not full; four teams a row where the device allows them
SHAPES = [(48, 256), (37, 2560), (16, 8192)]


@pytest.mark.parametrize("variant", ["dot", "subgroups,dot"])
@pytest.mark.parametrize("quant", ["Q4_K", "Q8_0", "Q6_K", "Q4_0"])
def test_a_token_among_others(quant: str, variant: str) -> None:
    for rows, columns in SHAPES if quant == "Q4_K" else SHAPES[:2]:
        x, out = Buffer("x", columns).view(), Buffer("out", rows).view()
        case = Case((Linear(x, ("w",), (out,)),), normal(64, columns), out, {"w": random_weight("w", quant, rows, columns)})
        alone = run(case, singly(one_batch(64)), variant)
        assert nmse(alone, expected(case, one_batch(64))) < 5e-4
        for count in COUNTS:
            assert np.array_equal(run(case, one_batch(count), variant), alone[:count]), (rows, columns, count)


def test_batches_of_wide_teams(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest batch that a GPU with wide subgroups takes, here with those that there are."""
    monkeypatch.setattr(linear, "NARROW_BATCHES", (linear.ALONE[0], linear.WIDE_BATCHES[-1]))
    x, out = Buffer("x", 2560).view(), Buffer("out", 37).view()
    case = Case((Linear(x, ("w",), (out,)),), normal(64, 2560), out, {"w": random_weight("w", "Q4_0", 37, 2560)})
    alone = run(case, singly(one_batch(64)), "subgroups,dot")
    for count in (2, 16, 17, 64):
        assert np.array_equal(run(case, one_batch(count), "subgroups,dot"), alone[:count]), count


@pytest.mark.parametrize("shared_from", [48, 49])
def test_a_token_among_others_with_plain_floats(shared_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows read their weights for each token, many rows share what is read."""
    monkeypatch.setattr(linear, "PLAIN_ROWS", shared_from)
    x, out = Buffer("x", 84).view(), Buffer("out", 48).view()
    case = Case((Linear(x, ("w",), (out,)),), normal(32, 84), out, {"w": floats("w", normal(48, 84))})
    alone = run(case, singly(one_batch(32)), "subgroups,dot")
    assert nmse(alone, expected(case, one_batch(32))) < 1e-10
    for count in (2, 4, 5, 8, 9, linear.PLAIN_TOKENS):
        assert np.array_equal(run(case, one_batch(count), "subgroups,dot"), alone[:count]), count


@pytest.mark.parametrize("variant", ["dot", "subgroups,dot"])
def test_a_gated_token_among_others(variant: str) -> None:
    """One token takes the kernel that makes the product and the activation together."""
    x, both, out = Buffer("x", 512).view(), Buffer("both", 128), Buffer("out", 64).view()
    gate, up = both.view(0, 64), both.view(64, 64)
    weights = {name: random_weight(name, "Q4_K", 64, 512, seed) for seed, name in enumerate("gu")}
    ops = (Linear(x, ("g", "u"), (gate, up)), GatedActivation(gate, up, out))
    case = Case(ops, normal(64, 512), out, weights)
    alone = run(case, singly(one_batch(64)), variant)
    for count in COUNTS:
        assert np.array_equal(run(case, one_batch(count), variant), alone[:count]), count


@pytest.mark.parametrize("variant", ["dot", "subgroups,dot"])
def test_rows_of_logits(variant: str) -> None:
    """Some tokens of a run, in any order, and one twice."""
    vocab, width = 200, 512
    weights = {"rows": floats("rows", normal(vocab, width)), "out": random_weight("out", "Q6_K", vocab, width)}
    view = Buffer("x", width).view()
    shapes = {name: weight.shape for name, weight in weights.items()}
    program = Program((Embed("rows", view), Logits(view, "out", 0.5, 3.0)), shapes, (), vocab)
    step = with_pages(backend(variant).compile(program, weights, StepLimits(128, 128)))
    alone = np.concatenate([step.run(Batch.of([token], 0, [0])) for token in range(80)])
    for outputs in ([79], [5, 2, 5], list(range(9)), list(range(linear.DOT_TOKENS))[::-1]):
        assert np.array_equal(step.run(Batch.of(range(80), 0, outputs)), alone[outputs])
    many = step.run(Batch.of(range(80), 0, range(80)))
    assert nmse(many, alone) < 1e-10
    step.close()
