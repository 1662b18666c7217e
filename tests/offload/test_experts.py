"""A layer whose experts two devices share: the rewritten program is sound, and only what is needed goes from device to device."""

from dataclasses import replace

import pytest

from lacewing.offload.cut import cut_program
from lacewing.offload.experts import DISPATCH, OTHERS, RESIDENT, TRUNK, resident_name, share_experts, source_name
from lacewing.program.check import ProgramError, check_program
from lacewing.program.ops import Combine, Dispatch, ExpertLinear, Route
from tests.offload.test_cut import MIXED, MIXTURE, receives, sends

LAYERS = [0 if op in MIXTURE[1:] else None for op in MIXED.ops]
DEVICES = {None: 0, TRUNK: 0, RESIDENT: 0, OTHERS: 1, DISPATCH: 2}


def shared(resident=1):
    return share_experts(MIXED, LAYERS, {0: resident})


def test_the_rewritten_program():
    made = shared()
    check_program(made.program)
    assert [side for side in made.sides if side] == [TRUNK, DISPATCH, *[RESIDENT] * 4, *[OTHERS] * 4, TRUNK]
    inside = [op for op, side in zip(made.program.ops, made.sides, strict=True) if side]
    assert isinstance(inside[0], Route) and inside[0] is MIXTURE[1]
    assert {name: shape for name, shape in made.program.weights.items() if name != source_name(name)} == {
        resident_name("gates"): (1, 3, 8), resident_name("ups"): (1, 3, 8), resident_name("downs"): (1, 8, 3)
    }  # fmt: skip
    both = [op.ids for op in inside if isinstance(op, ExpertLinear)]
    assert both == [inside[1].here] * 2 + [inside[1].there] * 2
    sums = [op for op in inside if isinstance(op, Combine)]
    assert [op.ids for op in sums] == [inside[1].here, inside[1].there, None]
    assert sums[2].add == sums[2].out == MIXTURE[-1].out and sums[2].x == sums[1].out


def test_nothing_to_share():
    made = share_experts(MIXED, LAYERS, {})
    assert made.program == MIXED and set(made.sides) == {None}


def test_three_devices():
    """The trunk's waits for nobody while it has resident experts to compute: nothing is asked of that stage."""
    made = shared()
    found = cut_program(made.program, [DEVICES[side] for side in made.sides])
    trunk, rest, manager = found.parts
    for part in found.parts:
        check_program(part.program)
    assert [turn.device for turn in found.schedule] == [0, 2, 0, 1, 0]
    dispatch = next(op for op in manager.program.ops if isinstance(op, Dispatch))
    assert receives(manager) == [(dispatch.ids,)] and set(sends(manager)[0]) == {dispatch.here, dispatch.there}
    assert sends(trunk)[1] == () and receives(trunk)[1] == (dispatch.here,)
    assert sends(rest) == [receives(trunk)[2]] and len(sends(rest)[0]) == 1
    assert set(rest.program.weights) == {"gates", "ups", "downs"} and rest.program.states == ()
    assert {name for name in trunk.program.weights if "resident" in name} == {
        resident_name(name) for name in ("gates", "ups", "downs")
    }


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"resident": 0}, "0 of 4 experts are resident"),
        ({"resident": 4}, "4 of 4 experts are resident"),
        ({"experts": 5}, "5 experts, the router has 4"),
        ({"there": MIXTURE[1].ids}, "overlap"),
        ({"here": MIXED.ops[0].out}, "differ in width"),
        ({"ids": MIXTURE[1].weights}, "does not hold the ids of a Route"),
    ],
)
def test_the_checker_knows_it(change, named):
    made = shared().program
    ops = tuple(replace(op, **change) if isinstance(op, Dispatch) else op for op in made.ops)
    with pytest.raises(ProgramError, match=named):
        check_program(replace(made, ops=ops))


def test_sums_of_what_is_no_id():
    made = shared().program
    ops = tuple(replace(op, ids=MIXTURE[1].weights) if isinstance(op, Combine) and op.ids else op for op in made.ops)
    with pytest.raises(ProgramError, match="ids are not those"):
        check_program(replace(made, ops=ops))


def test_experts_that_do_not_stand_together():
    with pytest.raises(ValueError, match="together"):
        share_experts(MIXED, [0 if layer == 0 and index % 2 else None for index, layer in enumerate(LAYERS)], {0: 1})
