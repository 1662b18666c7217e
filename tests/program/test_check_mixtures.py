"""The checker on routes, experts, latent keys: every way in which they can contradict the program."""

from dataclasses import replace

import pytest

from lacewing.program.check import ProgramError, check_program
from lacewing.program.ops import (
    Attention,
    Buffer,
    ClampedActivation,
    Combine,
    Embed,
    ExpertLinear,
    HeadLinear,
    LimitedActivation,
    Linear,
    Logits,
    Rope,
    RopeSpec,
    Route,
    ScaleByPosition,
    WriteKeysValues,
)
from lacewing.program.program import Program
from lacewing.program.states import Window
from tests.paged import paged

X, Q, KEYS = Buffer("x", 8).view(), Buffer("q", 10).view(), Buffer("keys", 6).view()
ABSORBED, ATTENDED, VALUES = Buffer("absorbed", 12).view(), Buffer("attended", 8).view(), Buffer("values", 4).view()
SCORES, IDS, WEIGHTS = Buffer("scores", 6).view(), Buffer("ids", 2).view(), Buffer("weights", 2).view()
BOTH, OUTS, BRANCH = Buffer("both", 12), Buffer("outs", 16).view(), Buffer("branch", 8).view()
GATE, UP = BOTH.view(0, 6), BOTH.view(6, 6)

OPS = (
    Embed("embedding", X),  # 0
    Linear(X, ("q", "keys"), (Q, KEYS)),
    Rope(Q, 2, RopeSpec((1.0,)), 3),  # 2
    ScaleByPosition(Q, 0.1, 16),
    HeadLinear(Q, "k_b", ABSORBED, 2),  # 4
    WriteKeysValues(KEYS, None, 0),
    Attention(ABSORBED, ATTENDED, 0, 2, 1, 0.5, sinks="sinks"),  # 6
    HeadLinear(ATTENDED, "v_b", VALUES, 2, transposed=True),
    Linear(X, ("router",), (SCORES,)),  # 8
    Route(SCORES, IDS, WEIGHTS, "sigmoid", "bias", 3, 2),
    ExpertLinear(X, IDS, ("gate", "up"), (GATE, UP), ("gate_bias", None), WEIGHTS),  # 10
    ClampedActivation(GATE, UP, GATE, 1.7, 7.0),
    ExpertLinear(GATE, IDS, ("down",), (OUTS,), separate=True),  # 12
    Combine(OUTS, WEIGHTS, BRANCH, 2, X),
    Logits(BRANCH, "embedding"),  # 14
)
SHAPES = {"embedding": (10, 8), "q": (10, 8), "keys": (6, 8), "k_b": (2, 4, 3), "sinks": (2,), "v_b": (2, 4, 2), "router": (6, 8),
          "bias": (6,), "gate": (6, 3, 8), "up": (6, 3, 8), "gate_bias": (6, 3), "down": (6, 8, 3)}  # fmt: skip
STATE = paged(1, 6, 4, latent=True)
PROGRAM = Program(OPS, SHAPES, (STATE,), 10)


LIMITED = LimitedActivation(GATE, UP, UP, 0.5)


def with_limit(**fields):
    """The program with another activation."""
    return replace(PROGRAM, ops=(*OPS[:11], replace(LIMITED, **fields), replace(OPS[12], x=UP), *OPS[13:]))


def changed(index, **fields):
    ops = list(OPS)
    ops[index] = replace(ops[index], **fields)
    return replace(PROGRAM, ops=tuple(ops))


def test_a_good_program():
    check_program(PROGRAM)
    check_program(with_limit())
    assert PROGRAM.groups[0].nbytes == 128 * 2 * 6
    fused = changed(10, weights=("both",), biases=(), interleaved=True, transposed=True)
    shapes = {name: shape for name, shape in SHAPES.items() if name not in ("gate", "up", "gate_bias")} | {"both": (6, 8, 6)}
    check_program(replace(fused, weights=shapes))


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        (changed(2, start=5), "start 5 in a head of 5"),
        (changed(2, start=4), "1 pairs in a head of 5"),
        (changed(3, length=0), "length 0"),
        (changed(3, beta=float("nan")), "beta nan"),
        (changed(4, heads=3), "not 3 equal heads"),
        (changed(4, transposed=True), "do not fit"),
        (changed(4, weight="q"), "must have three axes"),
        (changed(4, out=Q), "overlaps|do not fit"),
        (changed(4, weight="none"), "must have three axes"),
        (changed(5, v=Q.buffer.view(0, 4)), "v is None just where the values are in the keys"),
        (replace(PROGRAM, states=(paged(1, 6, 4),)), "v is None"),
        (replace(PROGRAM, states=(paged(1, 6, 4, dtype="q8_0", latent=True),)), "is not whole blocks of 32"),
        (replace(PROGRAM, states=(paged(1, 6, 4, dtype="int4", latent=True),)), "cannot be stored"),
        (changed(6, chunk=0), "chunk 0"),
        (replace(PROGRAM, states=(replace(STATE, reach=Window(4)),)), "window None, the state keeps"),
        (changed(6, sinks="bias"), r"bias is listed as \(6,\), this op needs \(2,\)"),
        (changed(9, ids=Buffer("ids", 7).view()), "7 active of 6"),
        (changed(9, weights=Buffer("weights", 3).view()), "3 weights for 2 ids"),
        (changed(9, weights=IDS), "overlap"),
        (changed(9, gating="sparsemixer"), "sparsemixer with a bias"),
        (changed(9, gating="tanh"), "'tanh' is none of softmax, sigmoid, sparsemixer"),
        (changed(9, groups=4), "6 experts in 4 groups"),
        (changed(9, groups_used=4), "4 of 3 groups"),
        (changed(9, groups=6, groups_used=1), "2 active experts from 1 groups of 1"),
        (changed(9, groups=6, groups_used=3), "the best 2 of 1"),
        (changed(9, group_best=3), "the best 3"),
        (changed(9, bias="sinks"), r"needs \(6,\)"),
        (changed(9, scale=float("inf")), "scale inf"),
        (changed(10, ids=WEIGHTS), "does not hold the ids of a Route"),
        (replace(PROGRAM, ops=(*OPS[:10], Linear(X, ("keys",), (BOTH.view(0, 6),)), *OPS[10:9:-1])), "."),
        (replace(PROGRAM, ops=(*OPS[:10], Combine(X, None, Buffer("ids", 2).view(), 4), *OPS[10:])), "does not hold the ids"),
        (changed(10, weights=("gate",), biases=()), r"needs \(6, 6, 8\)"),
        (changed(10, weights=("gate", "up", "up")), "3 weights for 2 outs"),
        (changed(10, interleaved=True), "interleaved needs one weight"),
        (changed(10, biases=("gate_bias",)), "1 biases for 2 weights"),
        (changed(10, transposed=True), r"needs \(6, 8, 3\)"),
        (changed(10, outs=(GATE, GATE)), "overlaps"),
        (changed(10, factor=SCORES), "factor is not one value"),
        (changed(10, separate=True), r"needs \(6, 3, 4\)"),
        (changed(11, limit=0.0), "limit 0.0"),
        (changed(11, up=GATE.buffer.view(5, 6)), "out overlaps up"),
        (with_limit(limit=float("inf")), "limit inf"),
        (with_limit(gate=BOTH.view(0, 5)), "differ in width"),
        (with_limit(gate=BOTH.view(1, 6)), "out must be gate itself"),
        (changed(12, x=BOTH.view(0, 5)), "not 2 equal parts"),
        (changed(13, active=3), "x has width 16, out 8"),
        (changed(13, weights=SCORES), "weights are not one value"),
        (changed(13, add=Q), "add and out differ in width"),
        (changed(13, out=OUTS.buffer.view(0, 8)), "out overlaps x"),
    ],
)
def test_a_contradiction(program, problem):
    with pytest.raises(ProgramError, match=problem):
        check_program(program)
