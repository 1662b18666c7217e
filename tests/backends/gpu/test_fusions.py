"""Which neighbouring ops may be one dispatch, and stacks of experts of several weights."""

from dataclasses import replace

import numpy as np

from lacewing.backends.gpu.fusions import activation_after, experts_before, sum_after, unused
from lacewing.backends.gpu.stacks import joined
from lacewing.program.ops import (
    AddNorm,
    Buffer,
    ClampedActivation,
    Combine,
    ExpertLinear,
    GatedActivation,
    LimitedActivation,
    Linear,
    Norm,
)
from lacewing.quants import by_name
from tests.models.running import MappedWeight

X, IDS, CHOSEN = Buffer("x", 32).view(), Buffer("ids", 2).view(), Buffer("chosen", 2).view()
WIDE = Buffer("wide", 128)
GATE, UP, EACH, OUT = WIDE.view(0, 64), WIDE.view(64), Buffer("each", 64).view(), Buffer("out", 32).view()
FIRST = ExpertLinear(X, IDS, ("g", "u"), (GATE, UP))
ACTIVATION = GatedActivation(GATE, UP, GATE)
DOWN = ExpertLinear(GATE, IDS, ("d",), (EACH,), separate=True)
SUM = Combine(EACH, CHOSEN, OUT, 2)
SHARED = Linear(X, ("s",), (OUT,))
BLOCK = (FIRST, ACTIVATION, DOWN, SHARED, replace(SUM, add=OUT))


def test_a_block_is_two_dispatches_even_with_shared_experts_between() -> None:
    assert activation_after(BLOCK, 0) == ACTIVATION
    assert sum_after(BLOCK, 2) == 4
    assert experts_before(BLOCK, 4) == DOWN
    twice = (*BLOCK, *BLOCK)  # the next layer writes everything anew before it reads it
    assert activation_after(twice, 0) == ACTIVATION and sum_after(twice, 2) == 4 and experts_before(twice, 9) == DOWN


def test_an_activation_stays_apart_where_its_inputs_live_on() -> None:
    assert activation_after((FIRST, ACTIVATION, Norm(UP, None, X, 1e-5)), 0) is None
    assert activation_after((FIRST, ACTIVATION, Linear(X, ("a",), (UP,)), Norm(UP, None, X, 1e-5)), 0) == ACTIVATION
    assert activation_after((FIRST, GatedActivation(GATE, UP, EACH), DOWN), 0) is None  # the gate is read by `DOWN`
    assert activation_after((FIRST, ClampedActivation(GATE, UP, EACH, 1, 7)), 0) is not None
    assert activation_after((FIRST, LimitedActivation(GATE, UP, EACH, 7)), 0) is not None
    assert activation_after((FIRST, GatedActivation(UP, GATE, GATE)), 0) is None
    assert activation_after((FIRST, GatedActivation(GATE, UP, WIDE.view(32, 64))), 0) is None  # partly the gate
    for read in ({"x": EACH}, {"factor": EACH.buffer.view(0, 2)}):  # what other workgroups still read
        assert activation_after((replace(FIRST, **read), GatedActivation(GATE, UP, EACH)), 0) is None
    assert activation_after((DOWN, ACTIVATION), 0) is None and activation_after((FIRST,), 0) is None


def test_a_sum_stays_apart_where_something_happens_before_it() -> None:
    changes = (
        Linear(X, ("a",), (GATE,)),  # the input of the experts
        Linear(X, ("a",), (IDS,)),
        AddNorm(GATE, X, None, OUT, 1e-5),  # adds to the input
        Norm(EACH, None, Buffer("y", 64).view(), 1e-5),  # reads what they made
        Linear(X, ("a",), (EACH,)),
    )
    for change in changes:
        assert sum_after((DOWN, change, SUM), 0) is None, change
    assert sum_after((DOWN, SUM, Norm(EACH, None, X, 1e-5)), 0) is None
    assert sum_after((DOWN, SUM, DOWN), 0) == 1
    assert sum_after((replace(DOWN, factor=CHOSEN), SUM), 0) is None
    assert sum_after((replace(DOWN, separate=False, x=X), SUM), 0) is None
    assert sum_after((DOWN, replace(SUM, out=WIDE.view(0, 32))), 0) is None  # written while other rows still read it
    assert sum_after((DOWN,), 0) is None and sum_after((FIRST, SUM), 0) is None and experts_before((SUM,), 0) is None


def test_what_is_unused() -> None:
    assert unused((SHARED,), 0, OUT) and not unused((SUM, Norm(OUT, None, X, 1e-5)), 1, OUT)
    half = Linear(X, ("a",), (OUT.buffer.view(0, 16),))
    assert not unused((half, Norm(OUT, None, X, 1e-5)), 0, OUT)  # only a part is written before


def weight(name: str, rows: int, seed: int, quant: str = "F32", apart: bool = False) -> MappedWeight:
    values = np.random.default_rng(seed).standard_normal((3, rows, 8)).astype(np.float32)
    pieces = tuple(part.view(np.uint8).reshape(-1) for part in values) if apart else ()
    return MappedWeight(name, values.shape, by_name(quant), values.view(np.uint8).reshape(-1), pieces)


def test_experts_of_two_weights_stand_together() -> None:
    gate, up = weight("g", 2, 1), weight("u", 4, 2, apart=True)
    found = joined((gate, up))
    assert found is not None and found.shape == (3, 6, 8) and found.name == "g + u"
    values = np.concatenate(found.parts).view(np.float32).reshape(found.shape)
    expected = np.concatenate([each.data.view(np.float32).reshape(each.shape) for each in (gate, up)], axis=1)
    np.testing.assert_array_equal(values, expected)
    assert all(np.shares_memory(part, gate.data) or np.shares_memory(part, up.pieces[i // 2]) for i, part in enumerate(found.parts))


def test_weights_that_cannot_stand_together() -> None:
    gate = weight("g", 2, 1)
    assert joined((gate,)) is gate
    assert joined((gate, weight("u", 2, 2, "F16"))) is None
    assert joined((gate, replace(weight("u", 2, 2), scales=weight("s", 1, 3)))) is None
