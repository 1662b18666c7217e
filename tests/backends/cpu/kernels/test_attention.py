"""Attention of the CPU backend against the reference backend: head shapes, windows, soft-caps, rows, long contexts."""

from dataclasses import replace

import numpy as np
import pytest

from tests.backends.cpu.checks import attention_case, check_against_reference
from tests.backends.cpu.single_ops import Batch, one_batch, singly

# heads, key heads, key width, value width
SHAPES = [(1, 1, 8, 8), (4, 2, 16, 16), (4, 1, 20, 12), (6, 3, 32, 24), (5, 5, 12, 33), (9, 3, 64, 64), (2, 1, 256, 256),
          (14, 2, 64, 64), (40, 1, 16, 16), (33, 1, 8, 16), (74, 2, 8, 8)]  # fmt: skip
PROMPT = [([0] * n, list(range(s, s + n))) for s, n in ((0, 1), (1, 2), (3, 17), (20, 33), (53, 1), (54, 1))]


def counted(batches: list[Batch]) -> int:
    return sum(len(positions) for _, positions in batches)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["f16", "f32"])
def test_shapes_of_heads(shape: tuple[int, int, int, int], dtype: str) -> None:
    check_against_reference(attention_case(55, *shape).stored_as(dtype), PROMPT, 5e-6)


@pytest.mark.parametrize("window", [1, 2, 7, 16, 100])
def test_windows(window: int) -> None:
    check_against_reference(attention_case(55, 4, 2, 32, 32, window), PROMPT, 5e-6)


@pytest.mark.parametrize("softcap", [0.5, 5.0, 50.0])
def test_softcaps(softcap: float) -> None:
    check_against_reference(attention_case(55, 4, 2, 32, 32, None, softcap), PROMPT, 5e-6)
    check_against_reference(attention_case(55, 4, 2, 32, 32, 9, softcap), PROMPT, 5e-6)


@pytest.mark.parametrize("window", [None, 40, 128, 200])
def test_long_contexts(window: int | None) -> None:
    """Past several blocks of 128 positions, in chunks that do and do not end with them."""
    sizes = (64, 63, 1, 1, 64, 64, 1, 30, 33, 5)
    starts = np.cumsum((0, *sizes)).tolist()
    batches: list[Batch] = [([0] * n, list(range(s, s + n))) for s, n in zip(starts, sizes, strict=False)]
    case = attention_case(counted(batches), 6, 2, 24, 24, window)
    found = check_against_reference(case, batches, 5e-6, context=350)
    assert np.array_equal(case.run(singly(batches), 3, context=350), found)


def test_several_rows_in_one_step() -> None:
    """Each token sees its own row; neighbours and their number change no bit."""
    lengths = (9, 1, 30, 3)
    alone: list[Batch] = [([row] * n, list(range(n))) for row, n in enumerate(lengths)]
    mixed: list[Batch] = [([row for rows, _ in alone for row in rows], [place for _, places in alone for place in places])]
    case = attention_case(sum(lengths), 8, 2, 16, 16, 20)
    found = check_against_reference(case, mixed, 5e-6, rows=4)
    assert np.array_equal(case.run(alone, rows=4), found)
    assert np.array_equal(case.run(singly(alone), 2, rows=4), found)


def test_writing_over_a_suffix_forgets_it() -> None:
    """The same positions run again, with other tokens: nothing of what was there is seen."""
    first, again = one_batch(40), one_batch(20, 10)
    case = attention_case(60, 4, 2, 16, 16)
    both = check_against_reference(case, [*first, *again], 5e-6)
    straight = case.x[np.r_[0:10, 40:60]]
    short = attention_case(30, 4, 2, 16, 16)
    assert np.array_equal(replace(short, x=straight).run(one_batch(30))[10:], both[40:])


def test_context_that_is_full() -> None:
    check_against_reference(attention_case(37, 4, 2, 16, 16), [*one_batch(36), *one_batch(1, 36)], 5e-6, context=37, rows=2)
