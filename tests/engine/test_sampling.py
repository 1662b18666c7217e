import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lacewing.engine.adjust import add_bias, penalise
from lacewing.engine.sampling import Sampler, log_sum_exp, min_p, top_k, top_p
from lacewing.errors import NumericError, OptionError
from lacewing.options import Sampling

ROW = np.array([1.0, 3.0, 2.0, 3.0, -1.0], np.float32)


def softmax(row):
    weights = np.exp(row.astype(np.float64) - row.max())
    return weights / weights.sum()


@given(st.integers(1, 5000), st.integers(1, 6000), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_top_k_equals_a_full_sort(size, k, seed, ties):
    row = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    if ties:
        row = np.round(row)
    assert np.array_equal(top_k(row, k), np.argsort(-row, kind="stable")[:k])


@given(st.integers(1, 3000), st.floats(0, 1), st.integers(0, 2**32 - 1), st.floats(0.1, 20))
@settings(max_examples=60, deadline=None)
def test_top_p_is_the_smallest_set(size, p, seed, scale):
    row = (np.random.default_rng(seed).normal(size=size) * scale).astype(np.float32)
    kept = top_p(row, p)
    probabilities = softmax(row)
    assert np.array_equal(kept, np.argsort(-row, kind="stable")[: len(kept)])
    assert probabilities[kept].sum() >= p - 1e-5
    assert len(kept) == 1 or probabilities[kept[:-1]].sum() < p + 1e-5


@pytest.mark.parametrize("p", [0.01, 0.05, 0.5, 1.0])
def test_min_p(p):
    probabilities = softmax(ROW)
    assert set(min_p(ROW, p)) == {i for i in range(5) if probabilities[i] >= p * probabilities.max() * (1 - 1e-6)}


def test_bias_and_penalties_leave_the_row_alone():
    before = ROW.copy()
    assert add_bias(ROW, {4: 10.0, 0: -1.0}).tolist() == [0, 3, 2, 3, 9]
    out = penalise(ROW, [1, 1, 4], repeat=2.0, presence=0.5, frequency=0.25)
    assert out.tolist() == pytest.approx([1, 1.5 - 0.5 - 0.5, 2, 3, -2 - 0.5 - 0.25])
    assert np.array_equal(ROW, before)


def test_greedy_breaks_ties_to_the_lowest_id():
    assert Sampler(Sampling(temperature=0), 5).pick(ROW, [0]).id == 1
    assert Sampler(Sampling(temperature=0, logit_bias={1: -1e9}), 5).pick(ROW, [0]).id == 3
    assert Sampler(Sampling(temperature=0, repeat_penalty=2.0), 5).pick(ROW, [1, 3]).id == 2
    assert Sampler(Sampling(temperature=0, repeat_penalty=2.0, repeat_window=1), 5).pick(ROW, [1, 3]).id == 1
    assert Sampler(Sampling(temperature=0, repeat_penalty=2.0, repeat_window=0), 5).pick(ROW, [1, 3]).id == 1


def test_same_seed_same_tokens_and_frequencies_follow_the_softmax():
    options = Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=11)
    first, again = (Sampler(options, 5) for _ in range(2))
    draws = [first.pick(ROW, [0]).id for _ in range(4000)]
    assert draws == [again.pick(ROW, [0]).id for _ in range(4000)]
    assert np.bincount(draws, minlength=5) / 4000 == pytest.approx(softmax(ROW), abs=0.03)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_is_applied_last(temperature):
    options = Sampling(temperature=temperature, top_k=3, top_p=1.0, min_p=0.0, seed=2)
    sampler = Sampler(options, 5)
    draws = np.bincount([sampler.pick(ROW, [0]).id for _ in range(4000)], minlength=5) / 4000
    kept = np.array([1, 3, 2])
    assert draws[[0, 4]].sum() == 0
    assert draws[kept] == pytest.approx(softmax(ROW[kept] / temperature), abs=0.03)


@pytest.mark.parametrize("options", [{"temperature": 1e-30}, {"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0, "top_k": 2}])
def test_narrow_options_take_the_likeliest(options):
    row = np.array([0, 5, 1, 4], np.float32)
    assert {Sampler(Sampling(seed=s, **options), 4).pick(row, [0]).id for s in range(20)} == {1}


def test_logprobs_come_from_the_raw_softmax():
    sampler = Sampler(Sampling(temperature=0, logit_bias={4: 100.0}, logprobs=2), 5)
    token = sampler.pick(ROW, [0])
    probabilities = softmax(ROW)
    assert token.id == 4 and token.logprob == pytest.approx(math.log(probabilities[4]), abs=1e-5)
    assert [pair[0] for pair in token.alternatives] == [1, 3]
    assert token.alternatives[0][1] == pytest.approx(math.log(probabilities[1]), abs=1e-5)
    assert log_sum_exp(ROW) == pytest.approx(math.log(np.exp(ROW.astype(np.float64)).sum()), abs=1e-6)


def test_without_logprobs_none_are_made():
    token = Sampler(Sampling(temperature=0), 5).pick(ROW, [0])
    assert token.logprob is None and token.alternatives == ()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("options", [{"temperature": 0}, {}, {"top_k": 0, "top_p": 1.0}])
def test_bad_rows_raise(bad, options):
    row = ROW.copy()
    row[2] = bad
    with pytest.raises(NumericError):
        Sampler(Sampling(**options), 5).pick(row, [0])
    with pytest.raises(NumericError):
        Sampler(Sampling(**options), 5).pick(np.full(5, -np.inf, np.float32), [0])


def test_bias_beyond_the_vocabulary():
    with pytest.raises(OptionError, match="token 5"):
        Sampler(Sampling(logit_bias={5: 1.0}), 5)


_NUMBERS = st.one_of(
    st.sampled_from(
        [0, 1, -1, 2**31, 2**31 + 1, 2**63 - 1, 2**63, 1e-300, 5e-324, 1e999, -1e999, math.nan, 100, 1e9, True, None, "1"]
    ),
    st.integers(-(2**70), 2**70),
    st.floats(),
)
_FIELDS = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty", "repeat_window",
           "seed", "logprobs", "max_tokens")  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(_FIELDS), _NUMBERS, max_size=4),
    st.dictionaries(st.integers(-2, 40), _NUMBERS, max_size=3),
    st.lists(st.sampled_from([0.0, -0.0, 1e-30, -80.0, 80.0, 3e38, -3e38, -math.inf, 1.5]), min_size=32, max_size=32),
)
@settings(max_examples=400, deadline=None)
def test_any_options_are_refused_or_work(fields, bias, row):
    try:
        sampler = Sampler(Sampling(**fields, logit_bias=bias), 32)
    except OptionError:
        return
    row = np.array(row, np.float32)
    try:
        token = sampler.pick(row, [1, 2, 3])
    except NumericError:
        assert row.max() == -math.inf or sampler.sampling.logit_bias or abs(row).max() > 1e38
        return
    assert 0 <= token.id < 32
