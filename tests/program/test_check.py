"""The checker finds every way in which a program can contradict itself."""

from dataclasses import replace

import pytest

from lacewing.program.check import ProgramError, check_program, rule_of
from lacewing.program.checker import Checker
from lacewing.program.operands import View
from lacewing.program.ops import (
    Activation,
    AddNorm,
    Attention,
    Buffer,
    Embed,
    GatedActivation,
    Hadamard,
    Linear,
    Logits,
    Norm,
    Receive,
    Rope,
    RopeSpec,
    WriteKeysValues,
)
from lacewing.program.program import Program
from lacewing.program.states import Window
from tests.paged import paged

X, NORMED, BRANCH = Buffer("x", 8).view(), Buffer("normed", 8).view(), Buffer("branch", 8).view()
QKV, ATTENDED = Buffer("qkv", 16), Buffer("attended", 8).view()
Q, K, V = QKV.view(0, 8), QKV.view(8, 4), QKV.view(12, 4)
GATE_UP = Buffer("gate_up", 12)
GATE, UP = GATE_UP.view(0, 6), GATE_UP.view(6, 6)

OPS = (
    Embed("embedding", X),  # 0
    Norm(X, "norm", NORMED, 1e-6),
    Linear(NORMED, ("q", "k", "v"), (Q, K, V), (None, "bias", None)),  # 2
    Norm(Q, "head_norm", Q, 1e-6, heads=2),
    Rope(Q, 2, RopeSpec((1.0, 0.5))),  # 4
    WriteKeysValues(K, V, 0),
    Attention(Q, ATTENDED, 0, 2, 1, 0.5, window=3),  # 6
    Linear(ATTENDED, ("output",), (BRANCH,)),
    AddNorm(X, BRANCH, None, NORMED, 1e-6),  # 8
    Linear(NORMED, ("gate_up",), (GATE_UP.view(),)),
    GatedActivation(GATE, UP, GATE),  # 10
    Linear(GATE, ("down",), (BRANCH,)),
    AddNorm(X, BRANCH, "norm", NORMED, 1e-6),  # 12
    Logits(NORMED, "embedding"),
)
WEIGHTS = {"embedding": (10, 8), "norm": (8,), "q": (8, 8), "k": (4, 8), "v": (4, 8), "bias": (4,), "head_norm": (4,),
           "output": (8, 8), "gate_up": (12, 8), "down": (8, 6)}  # fmt: skip
PROGRAM = Program(OPS, WEIGHTS, (paged(1, 4, 4, Window(3)),), 10)


def changed(index, **fields):
    ops = list(OPS)
    ops[index] = replace(ops[index], **fields)
    return replace(PROGRAM, ops=tuple(ops))


def with_hadamard(**fields):
    op = replace(Hadamard(Q, 1, 32), **fields)
    return replace(PROGRAM, ops=(*OPS[:5], op, *OPS[5:]))


def with_activation(**fields):
    op = replace(Activation(GATE, GATE, "relu2"), **fields)
    return replace(PROGRAM, ops=(*OPS[:11], op, *OPS[11:]))


def test_what_is_written_piece_by_piece():
    checker, buffer = Checker(PROGRAM), Buffer("wide", 2**40)  # of any width, without memory for it
    whole = Activation(buffer.view(), buffer.view(), "silu")
    for start, width in ((0, 8), (12, 2**40 - 12), (4, 6), (10, 2)):
        with pytest.raises(ProgramError, match="read before it is written"):
            checker.check(whole, rule_of(whole))
        piece = Receive((buffer.view(start, width),))
        checker.check(piece, rule_of(piece))
    checker.check(whole, rule_of(whole))


def test_a_good_program():
    check_program(PROGRAM)
    assert len(str(PROGRAM).splitlines()) == len(OPS)


def test_keys_that_are_rounded_are_spread_with_their_queries():
    """Once, whatever the precision was before; latent keys are values as well."""
    state = paged(1, 96, 64)
    q, k, v, out = (Buffer(name, width).view() for name, width in (("q", 192), ("k", 96), ("v", 64), ("out", 128)))
    ops = (WriteKeysValues(k, v, 0), Attention(q, out, 0, 2, 1, 0.5))
    program = Program(ops, {}, (state,), 10)
    spread = program.with_kv_type("q8_0")
    assert spread.ops == (Hadamard(k, 1, 32), ops[0], Hadamard(q, 2, 32), ops[1])
    assert spread.with_kv_type("q8_0") == spread and spread.with_kv_type("f16") == program.with_kv_type("f16")
    latent = replace(program, states=(replace(state, parts=state.parts[:1], latent=True),))
    assert latent.with_kv_type("q8_0").ops == ops


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        (replace(PROGRAM, ops=OPS[1:]), r"op 0 Norm.*x\[0:8\] is read before it is written"),
        (replace(PROGRAM, ops=OPS[:2] + OPS[3:]), r"qkv\[0:8\] is read before"),
        (changed(2, outs=(Q, K, K)), r"qkv\[8:12\] overlaps x or another out"),
        (changed(2, weights=("q", "k")), "2 weights for 3 outs"),
        (changed(2, biases=("bias",)), "1 biases for 3 outs"),
        (changed(2, biases=("bias", None, None)), r"weight bias is listed as \(4,\), this op needs \(8,\)"),
        (changed(2, weights=("q", "k", "w")), "weight w is not listed"),
        (changed(2, outs=(Q, K, View(QKV, 12, 5))), r"qkv\[12:17\] does not lie in its buffer of width 16"),
        (changed(2, outs=(Q, K, View(QKV, -1, 4))), "does not lie"),
        (changed(2, outs=(Q, K, View(QKV, 12, 0))), "does not lie"),
        (changed(7, x=Buffer("attended", 4).view()), "buffer attended has width 4 here and 8 before"),
        (changed(0, weight="output"), r"listed as \(8, 8\), this op needs \(10, 8\)"),
        (changed(0, scale=float("nan")), "scale nan"),
        (changed(1, eps=0.0), "eps 0.0"),
        (changed(1, heads=3), "not 3 equal heads"),
        (changed(3, out=QKV.view(4, 8)), "out must be x itself or lie apart"),
        (changed(1, out=GATE), "out has width 6"),
        (changed(8, add=X), "add overlaps x"),
        (changed(8, out=X), "out must lie apart from x"),
        (changed(8, add=Q.buffer.view(0, 4)), "widths differ: x 8, add 4, out 8"),
        (changed(4, rope=RopeSpec((1.0, 0.5, 0.1))), "3 pairs in a head of 4"),
        (changed(4, rope=RopeSpec(())), "0 pairs"),
        (changed(4, rope=RopeSpec((float("inf"),))), "not finite"),
        (changed(4, heads=3), "not 3 equal heads"),
        (with_hadamard(heads=3), "not 3 equal heads"),
        (with_hadamard(size=16), "size 16 is no power of two from 32 on"),
        (with_hadamard(size=48), "size 48 is no power of two"),
        (with_hadamard(heads=2), "a head of 4 values is not whole runs of 32"),
        (changed(5, state=1), "state 1 of 1"),
        (changed(5, state=-1), "state -1 of 1"),
        (changed(5, k=Q), r"qkv\[0:8\] has width 8"),
        (changed(5, v=Q), r"qkv\[0:8\] has width 8"),
        (replace(PROGRAM, ops=(*OPS[:6], OPS[5], *OPS[6:])), "written twice"),
        (replace(PROGRAM, ops=OPS[:5] + OPS[6:]), "read before its keys and values are written"),
        (changed(6, heads=4), "q has width 8"),
        (changed(6, key_heads=2), "2 key heads, the state has 1"),
        (changed(6, out=Q), "overlaps q"),
        (changed(6, out=GATE), "values of 3 values, the state has"),
        (changed(6, scale=0.0), "scale 0.0"),
        (changed(6, softcap=-1.0), "softcap -1.0"),
        (changed(6, window=0), "window 0"),
        (changed(6, window=4), r"window 4, the state keeps Window\(size=3\)"),
        (changed(6, window=None), "window None, the state keeps"),
        (changed(10, activation="relu"), "'relu' is none of silu, gelu_tanh, sigmoid, none"),
        (changed(10, gate=GATE_UP.view(0, 4)), "gate has 4 values for 6"),
        (changed(10, up=GATE_UP.view(5, 6)), "out must be up itself"),
        (changed(10, out=GATE_UP.view(1, 6)), "out must be gate itself"),
        (changed(10, out=BRANCH), "differ in width"),
        (with_activation(function="relu"), "'relu' is none of relu2, silu, gelu"),
        (with_activation(function="xielu"), r"constants \(\) of xielu"),
        (with_activation(constants=(1.0,)), r"constants \(1.0,\) of relu2"),
        (with_activation(out=BRANCH), "out has width 8, x 6"),
        (with_activation(out=GATE_UP.view(1, 6)), "out must be x itself"),
        (changed(13, weight="down"), "weight down is listed"),
        (changed(13, softcap=0.0), "softcap 0.0"),
        (replace(PROGRAM, ops=(*OPS, OPS[-1])), "stands after the logits"),
        (replace(PROGRAM, ops=OPS[:-1]), "no logits"),
        (replace(PROGRAM, weights=WEIGHTS | {"surplus": (1,)}), "no op uses: surplus"),
        (replace(PROGRAM, states=(*PROGRAM.states, PROGRAM.states[0])), r"states \[1\]"),
    ],
)
def test_a_contradiction(program, problem):
    with pytest.raises(ProgramError, match=problem):
        check_program(program)
