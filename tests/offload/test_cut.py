"""Programs are cut into parts that together do what the whole does, and hand over no more than others need."""

from dataclasses import replace

import pytest

from lacewing.offload.cut import CutError, cut_program
from lacewing.program.check import ProgramError, check_program
from lacewing.program.ops import AddNorm, Attention, Buffer, Combine, ExpertLinear, GatedActivation, Linear, Receive, Route, Send
from lacewing.program.program import Program
from tests.paged import paged
from tests.program.test_check import BRANCH, NORMED, OPS, PROGRAM, WEIGHTS, X

SCORES, IDS, SHARES = Buffer("scores", 4).view(), Buffer("ids", 2).view(), Buffer("shares", 2).view()
EXPERTS, OUTS = Buffer("experts", 12), Buffer("outs", 16).view()
MIXTURE = (
    Linear(NORMED, ("router",), (SCORES,)),  # 9
    Route(SCORES, IDS, SHARES, bias="bias of the router"),
    ExpertLinear(NORMED, IDS, ("gates", "ups"), (EXPERTS.view(0, 6), EXPERTS.view(6, 6))),  # 11
    GatedActivation(EXPERTS.view(0, 6), EXPERTS.view(6, 6), EXPERTS.view(0, 6)),
    ExpertLinear(EXPERTS.view(0, 6), IDS, ("downs",), (OUTS,), separate=True),  # 13
    Combine(OUTS, SHARES, BRANCH, 2),
)
MIXED = Program(
    (*OPS[:9], *MIXTURE, *OPS[12:]),
    {name: shape for name, shape in WEIGHTS.items() if name not in ("gate_up", "down")}
    | {"router": (4, 8), "bias of the router": (4,), "gates": (4, 3, 8), "ups": (4, 3, 8), "downs": (4, 8, 3)},
    PROGRAM.states,
    10,
)


def two_layers():
    """The layer of the checker's tests twice, the second over a state of its own."""
    later = [op.with_states({0: 1}) if op.state_ids else op for op in OPS[2:12]]
    later = [replace(op, window=None) if isinstance(op, Attention) else op for op in later]
    return replace(PROGRAM, ops=(*OPS[:12], OPS[12], *later, *OPS[12:]), states=(*PROGRAM.states, paged(1, 4, 4)))


def sends(part):
    return [op.xs for op in part.program.ops if isinstance(op, Send)]


def receives(part):
    return [op.outs for op in part.program.ops if isinstance(op, Receive)]


def test_the_good_mixture():
    check_program(MIXED)


@pytest.mark.parametrize("program", [PROGRAM, MIXED, two_layers()], ids=["dense", "mixture", "layers"])
def test_every_cut_gives_good_programs(program):
    legal = 0
    for cut in range(1, len(program.ops)):
        try:
            made = cut_program(program, [0] * cut + [1] * (len(program.ops) - cut))
        except CutError:
            continue
        legal += 1
        for part in made.parts:
            check_program(part.program)
        assert [turn.device for turn in made.schedule] == [0, 1]
        assert set().union(*(part.program.weights for part in made.parts)) == set(program.weights)
        assert sends(made.parts[0]) == receives(made.parts[1])
        assert made.schedule[1].received == tuple((0, place) for place in range(len(sends(made.parts[0])[0])))
    assert legal >= len(program.ops) - 6


def test_experts_away_take_turns():
    """The residual stream never leaves the device of the trunk."""
    made = cut_program(MIXED, [int(op in MIXTURE[1:]) for op in MIXED.ops])
    trunk, experts = made.parts
    assert [(turn.device, turn.stage) for turn in made.schedule] == [(0, 0), (1, 0), (0, 1)]
    assert set(sends(trunk)[0]) == {SCORES, NORMED} and sends(experts) == [(BRANCH,)] == receives(trunk)[1:]
    assert sum(view.width for part in made.parts for views in sends(part) for view in views) == 4 + 8 + 8
    assert set(experts.program.weights) == {"bias of the router", "gates", "ups", "downs"}
    assert experts.program.states == () and trunk.program.states == MIXED.states


def test_states_are_numbered_anew():
    program = two_layers()
    first_of_second = next(i for i, op in enumerate(program.ops) if op.state_ids == (1,))
    made = cut_program(program, [0] * first_of_second + [1] * (len(program.ops) - first_of_second))
    assert [part.states for part in made.parts] == [(0,), (1,)]
    assert [part.program.states for part in made.parts] == [(program.states[0],), (program.states[1],)]
    assert {state for op in made.parts[1].program.ops for state in op.state_ids} == {0}


def test_only_the_missing_columns_go_over():
    """A view of which the device has written a part itself."""
    whole, half = Buffer("gate_up", 12), Buffer("gate_up", 12).view(6, 6)
    program = [*OPS]
    program[9:10] = [Linear(NORMED, ("gate",), (whole.view(0, 6),)), Linear(NORMED, ("up",), (half,))]
    weights = {name: shape for name, shape in WEIGHTS.items() if name != "gate_up"} | {"gate": (6, 8), "up": (6, 8)}
    changed = replace(PROGRAM, ops=tuple(program), weights=weights)
    check_program(changed)
    made = cut_program(changed, [0] * 10 + [1] + [0] * 4)
    assert sends(made.parts[1]) == [(half,)]


def test_a_value_that_was_overwritten_comes_anew():
    """AddNorm changes x: who had it before does not have it any more."""
    made = cut_program(PROGRAM, [0] * 8 + [1] * 4 + [0] * 2)
    assert isinstance(PROGRAM.ops[8], AddNorm) and PROGRAM.ops[8].add == BRANCH
    assert X in sends(made.parts[1])[0] and X in receives(made.parts[0])[1]


def test_three_devices():
    made = cut_program(PROGRAM, [0] * 7 + [1] * 3 + [2] * 4)
    for part in made.parts:
        check_program(part.program)
    assert made.schedule[2].received and {turn for turn, _ in made.schedule[2].received} <= {0, 1}


@pytest.mark.parametrize(
    ("program", "devices", "named"),
    [
        (PROGRAM, [0] * 6 + [1] * 8, "state 0"),
        (MIXED, [0] * 11 + [1] * 6, "router"),
        (PROGRAM, [0] * 3, "3 devices for 14 ops"),
        (PROGRAM, [-1] * 14, "device -1"),
        (replace(PROGRAM, ops=OPS[1:]), [0] * 13, "x\\[0:8\\] is read before it is written"),
    ],
)
def test_what_cannot_be_cut(program, devices, named):
    with pytest.raises(CutError, match=named):
        cut_program(program, devices)


def test_the_checker_knows_stages():
    good = cut_program(PROGRAM, [0] * 8 + [1] * 6).parts[0].program
    check_program(good)
    with pytest.raises(ProgramError, match="between two stages"):
        check_program(replace(good, ops=(*good.ops, OPS[8])))
    with pytest.raises(ProgramError, match="no logits"):
        check_program(replace(good, ops=good.ops[:-1]))
    with pytest.raises(ProgramError, match="overlap"):
        check_program(replace(good, ops=(Receive((X, X)), *good.ops[1:])))
