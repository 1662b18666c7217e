"""A seed gives the same tokens: from whole rows and from a device's candidates, alone and in company, whatever the chunks."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lacewing.backends.choice import candidates_of
from lacewing.backends.cpu import CpuBackend
from lacewing.engine.engine import Engine, Request
from lacewing.engine.sampling import HEAD, Sampler
from lacewing.errors import NumericError
from lacewing.options import Sampling
from tests.checkpoints import prompt_of, tiny
from tests.engine.mock import VOCAB, AheadStep, MockStep, SeeingStep, hashed
from tests.maxima import maxima_of
from tests.models.running import open_step

SIZE = 300  # tokens of a vocabulary
OPTIONS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.3, 1.0, 1.7]),
        "top_k": st.sampled_from([0, 1, 3, 40, 64, 200]),
        "top_p": st.sampled_from([1.0, 0.9, 0.5, 0.0]),
        "min_p": st.sampled_from([0.0, 0.05, 0.3, 1.0]),
        "repeat_penalty": st.sampled_from([1.0, 1.0, 1.3, 3.0, 0.8]),
        "presence_penalty": st.sampled_from([0.0, 0.0, 0.7, -0.5]),
        "frequency_penalty": st.sampled_from([0.0, 0.0, 0.4, -0.2]),
        "repeat_window": st.sampled_from([0, 5, 64, -1]),
        "logit_bias": st.dictionaries(st.integers(0, 31), st.sampled_from([-100.0, -2.0, 0.5, 3.0, 100.0]), max_size=4),
        "logprobs": st.sampled_from([0, 0, 1, 5, 20]),
        "seed": st.integers(0, 2**32),
    }
)


def candidates_or_rows(sampler: Sampler, row: np.ndarray, history: list[int], mask: np.ndarray | None):
    """As a device and the engine do it; and whether candidates were enough."""
    wanted = sampler.wanted(history, None if mask is None else lambda: mask)
    if wanted:
        found = [candidates_of(row, each.settled()) for each in wanted]
        token = sampler.pick_among(wanted, found, history)
        if token is not None:
            return token, True
    return sampler.pick(row, history, mask), False


@given(OPTIONS, st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1.0, 4.0]), st.booleans(), st.booleans())
@settings(max_examples=250, deadline=None)
def test_candidates_lead_to_the_choice_of_whole_rows(options, seed, scale, ties, masked):
    random, sampling = np.random.default_rng(seed), Sampling(**options)
    one, other, seeing = (Sampler(sampling, SIZE) for _ in range(3))
    history = random.integers(0, 40, 30).tolist()
    for _ in range(6):
        row = (random.normal(size=SIZE) * scale).astype(np.float32)
        row = np.round(row) if ties else row
        mask = random.integers(1, 2**32, -(-SIZE // 32), np.uint32) if masked else None
        exact = one.pick(row, history, mask)
        assert seeing.pick(row, history, mask, partial(maxima_of(row[None]).top_k, 0, row)) == exact
        token, _ = candidates_or_rows(other, row, history, mask)
        assert token.id == exact.id and [i for i, _ in token.alternatives] == [i for i, _ in exact.alternatives]
        if sampling.logprobs:
            values = [exact.logprob, *(value for _, value in exact.alternatives)]
            assert [token.logprob, *(value for _, value in token.alternatives)] == pytest.approx(values, abs=1e-5)
        history.append(token.id)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0},
        {"temperature": 0, "logprobs": 5, "logit_bias": {3: 1.0}},
        {"top_k": 0, "top_p": 0.9, "min_p": 0},
        {"top_k": 0, "top_p": 1.0, "min_p": 0.05, "temperature": 1.5},
        {"top_k": 0, "top_p": 1.0, "min_p": 0, "temperature": 1.0},
        {"presence_penalty": 1.0, "frequency_penalty": -0.5, "logit_bias": {2: -100.0}},
        {"repeat_penalty": 1.3, "logprobs": 3},
        {"temperature": 0, "repeat_penalty": 1.3, "presence_penalty": 0.5},
    ],
)
def test_candidates_are_enough_for_what_people_ask(options):
    """With logits like those of language models, of which few are likely."""
    random, sampler, enough, history = np.random.default_rng(5), Sampler(Sampling(seed=1, **options), 5000), 0, [1, 2, 3]
    for _ in range(100):
        row = random.gumbel(size=5000).astype(np.float32) * 2
        token, known = candidates_or_rows(sampler, row, history, None)
        history.append(token.id)
        enough += known
    assert enough >= 98


def test_a_number_is_drawn_once_a_token():
    """Candidates that are not enough cost nothing: the whole row goes on with the same number."""
    options = Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=3)
    flat = np.zeros(10 * HEAD, np.float32)
    one, other = Sampler(options, len(flat)), Sampler(options, len(flat))
    known = 0
    for _ in range(200):
        token, enough = candidates_or_rows(other, flat, [0], None)
        known += enough
        assert one.pick(flat, [0]).id == token.id
    assert 5 <= known <= 40  # a tenth of the weight is in the head


# in company


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model on the CPU, run in chunks of any size."""
    path, steps = tiny("llama", "gguf", tmp_path_factory.mktemp("seeds"), "Q8_0"), {}

    def engine(chunk: int) -> Engine:
        if chunk not in steps:
            steps[chunk] = open_step(path, 256, CpuBackend(2), rows=4, chunk=chunk)[1]
        step = steps[chunk]
        return Engine(step, step.program.vocab_size, 256)

    yield engine
    for step in steps.values():
        step.close()


ASKED = st.lists(st.tuples(st.integers(1, 60), OPTIONS), min_size=2, max_size=5)


@given(ASKED, st.sampled_from([4, 7, 64]), st.sampled_from([5, 64]), st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_in_any_company(model, asked, chunk, alone_chunk, begun):
    """Tokens and log-probabilities, bitwise. Some begin when others are under way already."""
    requests = []
    for place, (length, options) in enumerate(asked):
        ids = prompt_of(f"seeds {place % 2}", 60)[:length]  # some begin alike
        requests.append(Request(ids, Sampling(max_tokens=6, **options)))
    alone = []
    for request in requests:
        engine = model(alone_chunk)
        alone.append(outcome(engine.submit(request)))
        engine.close()
    engine = model(chunk)
    streams = [engine.submit(each) for each in requests[: begun + 1]]
    for _ in range(2):
        engine.advance()
    streams += [engine.submit(each) for each in requests[begun + 1 :]]
    assert [outcome(stream) for stream in streams] == alone
    engine.close()


def outcome(stream):
    try:
        return list(stream)
    except NumericError as error:
        return str(error)


@given(st.lists(OPTIONS, min_size=1, max_size=4), st.integers(1, 64))
@settings(max_examples=40, deadline=None)
def test_a_device_that_gives_candidates(asked, chunk):
    """It gives up to 8, so that some have to look at whole rows, and do not disturb the others."""
    results = []
    for kind in (MockStep, SeeingStep, AheadStep):
        engine = Engine(kind(hashed, chunk=chunk, context=256, rows=4), VOCAB, 256)
        streams = [engine.submit(Request([place, 1, 2], Sampling(max_tokens=8, **each))) for place, each in enumerate(asked)]
        results.append([outcome(stream) for stream in streams])
    assert results[0] == results[1]  # whatever the device sees of its rows
    for exact, found in zip(results[0], results[2], strict=True):
        assert [each.id for each in exact] == [each.id for each in found] if isinstance(exact, list) else exact == found
