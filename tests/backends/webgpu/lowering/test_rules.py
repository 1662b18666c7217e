"""Which kinds of op have a rule."""

from __future__ import annotations

import pytest

from lacewing.backends.reference import attention  # noqa: F401  # its rules
from lacewing.backends.reference.ops import RULES as REFERENCE
from lacewing.backends.webgpu import backend  # noqa: F401  # importing it registers the rules
from lacewing.backends.webgpu.lowering import rows
from lacewing.backends.webgpu.lowering.compiler import RULES
from lacewing.program import ops


def test_every_kind_that_the_reference_runs_has_a_rule():
    """And those of split programs, which the reference gets as parts."""
    assert {*REFERENCE.kinds, ops.Receive, ops.Send} <= RULES.kinds


@pytest.mark.parametrize("kind", [ops.Norm, ops.Rope])
def test_a_second_rule_is_refused(kind):
    """Both kinds had two once, and the order of imports chose."""
    with pytest.raises(ValueError, match=f"the WebGPU backend has two rules for {kind.__name__}"):
        RULES.rule(kind)(rows.embed)
