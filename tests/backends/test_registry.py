"""The table of lowering rules: one rule a kind, and no kind without one goes unnoticed."""

import pytest

from lacewing.backends.registry import Rules
from lacewing.errors import UnsupportedModelError
from lacewing.program import ops


def test_a_second_rule_is_refused():
    rules = Rules("toy")

    @rules.rule(ops.Rope, ops.Norm)
    def first():
        return 1

    with pytest.raises(ValueError, match=r"toy backend has two rules for Norm: .*first and .*second"):

        @rules.rule(ops.Norm)
        def second():
            return 2

    assert rules.kinds == {ops.Rope, ops.Norm}


def test_a_kind_without_a_rule_is_told():
    x = ops.Buffer("x", 4).view()
    with pytest.raises(UnsupportedModelError, match="the toy backend cannot run the op Send"):
        Rules("toy")[ops.Send((x,))]
