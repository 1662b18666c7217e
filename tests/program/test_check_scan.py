"""The checker's rule of the selective scan."""

from dataclasses import replace

import pytest

from lacewing.program.check import ProgramError, check_program
from lacewing.program.ops import Buffer, SelectiveScan
from lacewing.program.states import FixedState
from tests.backends.cpu.checks import scan_case

OP, X = scan_case(1, 4, 2, 6, 5).ops[0], Buffer("x", 24 + 10 + 10 + 4)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"heads": 5}, "not 5 equal heads"),
        ({"groups": 3}, "4 heads do not divide over 3 groups"),
        ({"groups": 4}, "b and c of 10 and 10 values"),
        ({"c": X.view(34, 9)}, "b and c of 10 and 9"),
        ({"dt": X.view(44, 3)}, "3 time steps for 4 heads"),
        ({"heads": 2}, "4 time steps for 2 heads"),
        ({"groups": 1}, "this op needs scan"),
        ({"out": Buffer("out", 23).view()}, "out has width 23, x 24"),
        ({"out": X.view(1, 24)}, "out must be x itself"),
        ({"x": Buffer("x", 48).view(10, 24), "out": X.view(10, 24)}, "out overlaps b, c or dt"),
        ({"limits": (1.0, 0.5)}, "limits"),
        ({"skip": "rows"}, "weight rows is listed"),
        ({"state": 1}, "state 1 of 1"),
    ],
)
def test_a_contradiction(fields, problem):
    case = scan_case(1, 4, 2, 6, 5)
    check_program(case.program)
    assert isinstance(OP, SelectiveScan)
    with pytest.raises(ProgramError, match=problem):
        check_program(replace(case, ops=(replace(OP, **fields),)).program)


def test_a_state_that_is_written_twice_or_has_other_parts():
    case = scan_case(1, 4, 2, 6, 5)
    with pytest.raises(ProgramError, match="written twice"):
        check_program(replace(case, ops=case.ops * 2).program)
    with pytest.raises(ProgramError, match="has the parts"):
        check_program(replace(case, states=(FixedState((("conv", (4, 5, 6)),)),)).program)
