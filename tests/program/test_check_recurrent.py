"""The checker on the gated delta rule and on heads taken apart: every way in which they can contradict the program."""

from dataclasses import replace

import pytest

from lacewing.program.check import ProgramError, check_program
from lacewing.program.ops import Buffer, Embed, GatedDelta, Logits, SplitHeads
from lacewing.program.program import Program
from lacewing.program.states import FixedState

X, ALL, OUT = Buffer("x", 36).view(), Buffer("all", 36), Buffer("out", 12).view()
Q, K, V = ALL.view(0, 8), ALL.view(8, 8), ALL.view(16, 12)
DECAY, BETA = ALL.view(28, 4), ALL.view(32, 4)
DELTA = GatedDelta(Q, K, V, DECAY, BETA, OUT, "rate", "bias", 0, 4, 2, 0.5)
OPS = (Embed("embedding", X), SplitHeads(X, (Q, K, V, DECAY, BETA), 4), DELTA, Logits(OUT, "output"))
STATE = FixedState((("delta", (4, 4, 3)),))
SHAPES = {"embedding": (10, 36), "rate": (4,), "bias": (4,), "output": (10, 12)}
PROGRAM = Program(OPS, SHAPES, (STATE,), 10)


def changed(index, **fields):
    ops = list(OPS)
    ops[index] = replace(ops[index], **fields)
    return replace(PROGRAM, ops=tuple(ops))


def test_a_whole_program():
    check_program(PROGRAM)
    by_row = changed(2, decay=X.buffer.view(0, 16))
    check_program(replace(by_row, weights=SHAPES | {"bias": (16,)}))


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        (changed(2, key_heads=3), "4 heads over 3 key heads"),
        (changed(2, heads=8), "is not 8 equal heads"),
        (changed(2, q=ALL.view(0, 4)), "q and k, or v and out, differ"),
        (changed(2, out=Buffer("out", 16).view()), "q and k, or v and out, differ"),
        (changed(2, beta=ALL.view(32, 2)), "beta has width 2 for 4 heads"),
        (changed(2, decay=ALL.view(0, 8)), "decay has width 8"),
        (changed(2, eps=0.0), "eps 0.0"),
        (changed(2, scale=float("inf")), "scale inf"),
        (changed(2, out=V), "out overlaps what is read"),
        (replace(PROGRAM, states=(FixedState((("delta", (4, 3, 4)),)),)), "state 0 has the parts"),
        (replace(PROGRAM, ops=(*OPS[:3], OPS[2], OPS[3])), "state 0 is written twice"),
        (replace(PROGRAM, weights=SHAPES | {"rate": (3,)}), "weight rate is listed"),
        (replace(PROGRAM, weights=SHAPES | {"bias": (16,)}), "weight bias is listed"),
        (changed(1, heads=8), "a width is not 8 equal heads"),
        (changed(1, outs=(Q, K, V, DECAY)), "the parts are not the 36 columns of x"),
        (changed(1, outs=(Q, Q, V, DECAY, BETA)), "overlaps x or another out"),
    ],
)  # fmt: skip
def test_a_contradiction(program, problem):
    with pytest.raises(ProgramError, match=problem):
        check_program(program)
