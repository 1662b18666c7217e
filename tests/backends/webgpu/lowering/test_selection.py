"""Attention over positions that an index chooses, on WebGPU against the reference: few and many tokens, splits, rows, bytes."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest

from lacewing.backends.webgpu.lowering import selection
from lacewing.backends.webgpu.lowering.attention import ALONE
from tests.backends.cpu.selection import selection_case, spread, with_ties
from tests.backends.cpu.single_ops import Batch
from tests.backends.webgpu.single_ops import CODES, FLOATS, error

PLAIN = "none"


def prompt(*sizes: int) -> list[Batch]:
    """Steps of one row, one after another."""
    starts = np.cumsum((0, *sizes)).tolist()
    return [([0] * n, list(range(s, s + n))) for s, n in zip(starts, sizes, strict=False)]


@pytest.mark.parametrize(("variant", "dtype"), [(PLAIN, "f16"), (FLOATS, "f32"), (CODES, "f16")])
def test_choices_of_few_and_many_tokens(variant: str, dtype: str) -> None:
    """Prompts that see less than is chosen, that pass that border, and more."""
    case = selection_case(148, 16, 4, 40, 32).stored_as(dtype)
    assert error(case, prompt(8, 1, 40, 1, 64, 3, 30, 1), variant, 160) < 1e-6


def test_bytes() -> None:
    case = spread(selection_case(100, 12, 4, 64, 32)).stored_as("q8_0")
    assert error(case, prompt(1, 20, 60, 3, 16), CODES, 128) < 1e-6


def test_equal_scores_are_chosen_by_position() -> None:
    assert error(with_ties(selection_case(120, 50, 2, 40, 32, (3, 12))), prompt(64, 1, 54, 1), FLOATS, 128) < 1e-6


def test_so_many_chosen_that_their_keys_are_divided() -> None:
    case = selection_case(345, ALONE + 40, 2, 40, 32, (2, 32))
    assert error(case, prompt(*[64] * 4, 1, 64, 22, 1, 1), FLOATS, 400) < 1e-6


def test_several_rows_and_passes() -> None:
    """Scores of three tokens fit; tokens of rows of all lengths."""
    batches: list[Batch] = [([0] * 20 + [1] * 3 + [2] * 9, [*range(20), *range(3), *range(9)]), ([2, 1, 0], [9, 3, 20])]
    with patch.object(selection, "SCORE_BYTES", 3 * 4 * 64):
        assert error(selection_case(35, 5, 2, 24, 16, (3, 20)), batches, CODES, 64, 3) < 1e-6
