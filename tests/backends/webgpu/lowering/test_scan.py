"""The selective scan on WebGPU against the reference."""

import math

import pytest

from tests.backends.cpu.checks import scan_case
from tests.backends.cpu.single_ops import Batch
from tests.backends.webgpu.single_ops import error


@pytest.mark.parametrize(
    ("heads", "groups", "width", "states", "limits"),
    [(4, 2, 64, 128, (0.0, math.inf)), (3, 1, 20, 7, (0.2, 0.6)), (2, 2, 100, 33, (0.001, math.inf)), (1, 1, 3, 2, (0.0, 0.5))],
)
def test_scan(heads: int, groups: int, width: int, states: int, limits: tuple[float, float]) -> None:
    """Blocks of columns that are whole and not; several rows of a step; a sequence begins anew."""
    batches: list[Batch] = [([0] * 5 + [2], [0, 1, 2, 3, 4, 0]), ([2, 2, 0], [1, 2, 5]), ([1] * 20, list(range(20)))]
    batches += [([0, 1, 2], [6, 20, 3]), ([0] * 2, [0, 1])]
    for log in (False, True):
        assert error(scan_case(34, heads, groups, width, states, limits, log), batches, rows=3) < 1e-11
