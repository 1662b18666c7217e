"""What ops say of their operands, by the types of their fields."""

from dataclasses import dataclass

import pytest

from lacewing.program import ops
from lacewing.program.operands import Buffer, Op, View, roles

X, Y, Z = (Buffer(name, 8).view() for name in "xyz")


def test_views_weights_and_states():
    op = ops.AddNorm(X, Y, "norm", Z, 1e-6)
    assert (op.reads, op.writes, op.views, op.weight_names, op.state_ids) == ([X, Y], [X, Z], [X, Y, Z], ("norm",), ())
    linear = ops.Linear(X, ("a", "b"), (Y, Z), (None, "bias"))
    assert (linear.reads, linear.writes, linear.weight_names) == ([X], [Y, Z], ("a", "b", "bias"))
    attention = ops.Attention(X, Y, 3, 2, 1, 0.5, sinks="sinks")
    assert (attention.state_ids, attention.weight_names, attention.value_width) == ((3,), ("sinks",), 4)
    assert ops.ShortConvolution(X, "taps", Y, 1).state_ids == (1,)
    assert ops.Receive((X, Y)).writes == [X, Y]
    assert ops.Send((X,)).reads == [X]


def test_weights_stored_the_other_way_round():
    experts = ops.ExpertLinear(X, Y, ("stack",), (Z,), ("bias",), transposed=True)
    assert (experts.weights_read_across, experts.weight_names) == (("stack",), ("stack", "bias"))
    assert ops.HeadLinear(X, "heads", Y, 2, transposed=True).weights_read_across == ("heads",)
    assert ops.HeadLinear(X, "heads", Y, 2).weights_read_across == ()


def test_renaming():
    linear = ops.Linear(X, ("a", "b"), (Y, Z), (None, "bias"))
    renamed = linear.with_weights(str.upper)
    assert (renamed.weights, renamed.biases) == (("A", "B"), (None, "BIAS"))
    assert ops.Attention(X, Y, 3, 2, 1, 0.5).with_states({3: 0}).state == 0


def test_a_view_without_a_role_is_refused():
    @dataclass(frozen=True)
    class Forgotten(Op):
        x: ops.In
        y: View

    with pytest.raises(TypeError, match=r"Forgotten\.y must say by its type"):
        roles(Forgotten)


def test_overlap():
    whole = Buffer("b", 8)
    assert whole.view(0, 4).overlaps(whole.view(3, 2))
    assert not whole.view(0, 4).overlaps(whole.view(4, 4))
    assert not whole.view().overlaps(Buffer("c", 8).view())
