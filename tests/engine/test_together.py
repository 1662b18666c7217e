"""Many sequences choose together what each would choose alone, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lacewing.backends.batch import Candidates, Wanted
from lacewing.engine.sampling import Sampler
from lacewing.engine.together import FEW, pick_rows_together, pick_together
from lacewing.options import Sampling
from tests.maxima import maxima_of

VOCAB = 1000
numbers = st.floats(0, 1, width=32)
samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 1e-3, 0.5, 0.8, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 2, 7, 40, 40, 40, 64]),
    top_p=st.one_of(st.sampled_from([0.0, 0.5, 0.95, 1.0]), numbers),
    min_p=st.one_of(st.sampled_from([0.0, 0.05, 1.0]), numbers),
    seed=st.integers(0, 2**31),
    logprobs=st.sampled_from([0, 0, 0, 3]),
    presence_penalty=st.sampled_from([0.0, 0.0, 0.0, 0.5]),
)


def candidates(random: np.random.Generator, spread: float, count: int) -> Candidates:
    """Some of them equal."""
    logits = -np.sort(-random.normal(0, spread, count).astype(np.float32).round(2))
    return Candidates(random.permutation(VOCAB)[:count], logits, float(np.logaddexp.reduce(logits.astype(np.float64))))


@settings(max_examples=300, deadline=None)
@given(st.lists(samplings, min_size=1, max_size=20), st.integers(0, 2**31), st.sampled_from([0.01, 1.0, 4.0, 60.0]))
def test_tokens_are_those_of_each_alone(options: list[Sampling], seed: int, spread: float) -> None:
    random = np.random.default_rng(seed)
    together, alone = ([Sampler(each, VOCAB) for each in options] for _ in range(2))
    for _ in range(3):  # the random numbers go on as well
        found = [candidates(random, spread, 64) for _ in options]
        picked = pick_together(together, found)
        for index, (one, other) in enumerate(zip(together, alone, strict=True)):
            if index in picked:
                expected = other.pick_among((Wanted(other.plain_count),), [found[index]], [1])
                assert picked[index] == expected
            else:
                assert not one.plain_count or sum(each.plain_count == one.plain_count for each in together) <= FEW


def test_who_wants_something_special_is_left_out() -> None:
    plain, special = Sampling(seed=1), Sampling(seed=1, logprobs=2)
    samplers = [Sampler(each, VOCAB) for each in [plain] * 6 + [special]]
    found = [candidates(np.random.default_rng(1), 1.0, 64)] * 7
    assert sorted(pick_together(samplers, found)) == list(range(6))


def test_too_few_candidates_are_left_out() -> None:
    samplers = [Sampler(Sampling(seed=1), VOCAB) for _ in range(6)]
    assert not pick_together(samplers, [candidates(np.random.default_rng(1), 1.0, 39)] * 6)


@settings(max_examples=200, deadline=None)
@given(st.lists(samplings, min_size=1, max_size=20), st.integers(0, 2**31), st.sampled_from([100, VOCAB, 9001]), st.booleans())
def test_whole_rows_lead_to_the_tokens_of_each_alone(options: list[Sampling], seed: int, vocab: int, seen: bool) -> None:
    """Also where the device has seen the largest logits."""
    random = np.random.default_rng(seed)
    together, alone = ([Sampler(each, vocab) for each in options] for _ in range(2))
    for _ in range(3):
        rows = [random.normal(0, 4, vocab).astype(np.float32).round(2) for _ in options]
        picked = pick_rows_together(together, rows, maxima_of(np.stack(rows)) if seen else None)
        for index, (one, other) in enumerate(zip(together, alone, strict=True)):
            if index in picked:
                assert picked[index] == other.pick(rows[index], [1])
            else:
                assert not one.plain_count or sum(each.plain_count == one.plain_count for each in together) <= FEW


@pytest.mark.parametrize("count", [1, 3, 16])
def test_the_largest_of_all_rows_at_once(count: int) -> None:
    """Ties go to the lowest id, and rows that are no numbers are left out."""
    random = np.random.default_rng(count)
    rows = random.normal(0, 1, (count, 9001)).astype(np.float32).round(1)
    samplers = [Sampler(Sampling(temperature=0), 9001) for _ in rows]
    expected = {index: sampler.pick(row, [1]) for index, (sampler, row) in enumerate(zip(samplers, rows, strict=True))}
    assert pick_rows_together(samplers, rows) == expected == pick_rows_together(samplers, list(rows))
    assert pick_rows_together(samplers, rows, maxima_of(rows)) == expected
    for bad in (np.nan, np.inf):
        rows[count // 2, 8000] = bad
        left = {index: token for index, token in expected.items() if index != count // 2}
        assert pick_rows_together(samplers, rows) == left == pick_rows_together(samplers, list(rows))
        assert pick_rows_together(samplers, rows, maxima_of(rows)) == left


@pytest.mark.parametrize("place", [0, 5000, 9000])  # the last one is in no group of equal size
def test_a_row_that_is_no_number_is_left_out_alone(place: int) -> None:
    rows = [np.random.default_rng(each).normal(size=9001).astype(np.float32) for each in range(8)]
    rows[3][place] = np.nan
    for maxima in (None, maxima_of(np.stack(rows))):
        samplers = [Sampler(Sampling(seed=1), 9001) for _ in rows]
        assert sorted(pick_rows_together(samplers, rows, maxima)) == [0, 1, 2, 4, 5, 6, 7]
