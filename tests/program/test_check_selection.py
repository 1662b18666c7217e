"""The checker on an index and the attention that sees what it chooses; how an index is stored as bytes."""

from dataclasses import replace

import pytest

from lacewing.program.check import ProgramError, check_program
from lacewing.program.ops import Attention, Buffer, Embed, Hadamard, Logits, SelectKeys, WriteKeysValues
from lacewing.program.program import Program
from lacewing.program.states import PagedState, Part, Window

X = Buffer("x", 16 + 32 + 32 + 64 + 2)
K, Q, INDEX, ASKED, SHARES = (X.view(start, width) for start, width in ((0, 16), (16, 32), (48, 32), (80, 64), (144, 2)))
CHOSEN, OUT = Buffer("chosen", 8).view(), Buffer("out", 24).view()
STATE = PagedState((Part("keys", 1, 16), Part("index", 1, 32)), latent=True)
OPS = (
    Embed("embedding", X.view()),
    WriteKeysValues(K, None, 0, INDEX),  # 1
    SelectKeys(ASKED, SHARES, CHOSEN, 0, 2),  # 2
    Attention(Q, OUT, 0, 2, 1, 0.5, chosen=CHOSEN),  # 3
    Logits(OUT, "output"),
)
PROGRAM = Program(OPS, {"embedding": (10, 146), "output": (10, 24)}, (STATE,), 10)


def changed(place, **fields):
    ops = list(OPS)
    ops[place] = replace(ops[place], **fields)
    return replace(PROGRAM, ops=tuple(ops))


def with_state(**fields):
    return replace(PROGRAM, states=(replace(STATE, **fields),))


def test_a_whole_program():
    check_program(PROGRAM)
    assert STATE.page_bytes == 128 * 2 * (16 + 32) and STATE.part("index") == STATE.parts[1] and STATE.part("values") is None
    again = Attention(Q, OUT, 0, 2, 1, 0.5, chosen=CHOSEN)  # another layer may see what this one chose
    check_program(replace(PROGRAM, ops=(*OPS[:4], again, OPS[4])))


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        (changed(1, index=None), "has the parts .*keys.*index"),
        (changed(1, index=X.view(48, 16)), "has width 16"),
        (changed(2, heads=3), "q has width 64"),
        (changed(2, weights=X.view(144, 1)), "1 weights for 2 heads"),
        (changed(2, chosen=X.view(80, 8)), "chosen overlaps"),
        (changed(3, chosen=Buffer("other", 8).view()), "read before it is written"),
        (changed(3, chosen=X.view(0, 8)), "does not hold what SelectKeys chose"),
        (changed(3, window=4), "only plain latent attention"),
        (changed(3, softcap=1.0), "only plain latent attention"),
        (with_state(parts=(Part("keys", 1, 16), Part("index", 2, 16))), "the index has one head"),
        (with_state(parts=STATE.parts[:1]), "has the parts"),
        (with_state(reach=Window(4)), "within reach"),
        (replace(PROGRAM, ops=(OPS[0], *OPS[2:])), "read before it is written"),
        (replace(PROGRAM, ops=(*OPS[:3], Embed("embedding", X.view()), *OPS[3:])), None),
        (replace(PROGRAM, ops=(*OPS[:3], replace(OPS[0], weight="wide", out=CHOSEN), *OPS[3:]),
                 weights={**PROGRAM.weights, "wide": (10, 8)}), "does not hold what SelectKeys chose"),
    ],
)  # fmt: skip
def test_a_contradiction(program, problem):
    if problem is None:
        check_program(program)
        return
    with pytest.raises(ProgramError, match=problem):
        check_program(program)


def test_an_index_of_bytes_is_spread_and_latent_keys_are_not():
    spread = PROGRAM.with_kv_type("q8_0")
    assert spread.ops == (OPS[0], Hadamard(INDEX, 1, 32), OPS[1], Hadamard(ASKED, 2, 32), *OPS[2:])
    assert [part.dtype for part in spread.states[0].parts] == ["q8_0"] * 2
    assert spread.with_kv_type("f16").ops == OPS
