"""The selective scan on the CPU against the reference, and that neither pieces, company nor threads change a bit."""

import math

import numpy as np
import pytest

from lacewing.backends.cpu.isa import host_isa
from tests.backends.cpu.checks import check_against_reference, scan_case
from tests.backends.cpu.single_ops import Batch, one_batch, singly

LANES = host_isa().lanes


@pytest.mark.parametrize(
    ("heads", "groups", "width", "states"),
    [(4, 1, 2 * LANES, 16), (3, 3, LANES, 5), (4, 2, 3 * LANES + 3, 8), (2, 1, 5, 128), (6, 2, 64, 128), (1, 1, 1, 1)],
)
def test_scan(heads: int, groups: int, width: int, states: int) -> None:
    """Whole blocks of columns, a register, and single columns; pieces that are whole runs of tokens and not."""
    case = scan_case(40, heads, groups, width, states)
    batches: list[Batch] = [*one_batch(1), *one_batch(2, 1), *one_batch(17, 3), *one_batch(1, 20), *one_batch(19, 21)]
    found = check_against_reference(case, batches, 5e-6)
    for others in (one_batch(40), singly(batches), [*one_batch(4), *one_batch(36, 4)]):
        assert np.array_equal(case.run(others, 3), found)


@pytest.mark.parametrize("limits", [(0.0, math.inf), (0.3, 0.6), (0.001, math.inf)])
def test_limits_and_logarithms(limits: tuple[float, float]) -> None:
    for log in (False, True):
        check_against_reference(scan_case(9, 4, 2, 20, 12, limits, log), one_batch(9), 5e-6)


def test_rows_keep_their_own_state() -> None:
    """Several sequences in a step, each with the bits that it has alone; one begins anew."""
    case = scan_case(40, 4, 2, 2 * LANES + 1, 24)
    batches: list[Batch] = [([0] * 5 + [2], [0, 1, 2, 3, 4, 0]), ([2, 2, 0], [1, 2, 5]), ([1] * 20, list(range(20)))]
    batches += [([0, 1, 2], [6, 20, 3]), ([0] * 8, list(range(8)))]
    found = check_against_reference(case, batches, 5e-6, rows=3)
    order = [row for rows, _ in batches for row in rows]
    alone = scan_case(40, 4, 2, 2 * LANES + 1, 24)
    alone.x[:21] = case.x[[place for place, row in enumerate(order) if row == 1]]
    assert np.array_equal(alone.run(one_batch(21))[:21], found[[place for place, row in enumerate(order) if row == 1]])


def test_a_nan_stays_in_its_sequence() -> None:
    case = scan_case(12, 2, 1, LANES, 8)
    case.x[3, 2 * LANES + 2] = np.nan  # of b
    found = case.run([([0] * 4 + [1] * 4, [*range(4), *range(4)]), ([0, 0, 1, 1], [4, 5, 4, 5])], 2, rows=2)
    broken = [3, 8, 9]
    assert np.isnan(found[broken]).all() and np.isfinite(np.delete(found, broken, axis=0)).all()
