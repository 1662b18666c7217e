"""Every kind of op has one rule, whatever of the lowering is imported first."""

import subprocess
import sys

import pytest

from lacewing.backends.cpu.lowering import FAMILIES, context
from lacewing.program import ops

ELSEWHERE = {ops.Dispatch}  # offload/cache.py runs it on the host


def kinds() -> set[type[ops.Op]]:
    return {kind for kind in ops.Op.__subclasses__() if kind.__module__.startswith("lacewing.program.")}


def test_every_kind_of_op_has_a_rule() -> None:
    assert kinds() - ELSEWHERE == context.RULES.kinds


@pytest.mark.parametrize("family", [family.__name__ for family in FAMILIES])
def test_a_family_can_be_imported_first(family: str) -> None:
    """No file of the lowering needs one that needs it."""
    code = f"import {family}; from lacewing.backends.cpu.lowering.context import RULES; print(len(RULES.kinds))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(found) == len(context.RULES.kinds)
