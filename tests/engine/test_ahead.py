"""Steps that choose tokens themselves give the engine the same tokens, whatever happens in between."""

from __future__ import annotations

import numpy as np
import pytest

from lacewing.engine.engine import Engine, Request
from lacewing.errors import NumericError
from lacewing.options import Sampling
from tests.engine.mock import KINDS, VOCAB, AheadStep, DrawingStep, MockStep, counting, hashed

OPTIONS = [
    Sampling(temperature=0, max_tokens=9),
    Sampling(temperature=0, max_tokens=9, logprobs=3),
    Sampling(temperature=0.9, top_k=1, max_tokens=6),
    Sampling(temperature=0.8, top_k=5, top_p=0.9, min_p=0.02, seed=4, max_tokens=9),
    Sampling(temperature=1.5, top_k=8, seed=5, logprobs=4, max_tokens=9),
    Sampling(temperature=1, top_k=4, seed=5, logprobs=6, max_tokens=9),
    Sampling(temperature=1, top_k=0, seed=6, max_tokens=9),  # looks at the whole row
    Sampling(temperature=1, top_k=9, seed=6, max_tokens=9),  # more than the step finds
    Sampling(temperature=0, repeat_penalty=1.3, max_tokens=9),
    Sampling(temperature=0, logit_bias={3: 9.0}, max_tokens=9),
]


def engines(script=hashed, context=64):
    return [Engine(kind(script, 4, context), VOCAB, context) for kind in (MockStep, AheadStep)]


@pytest.mark.parametrize("sampling", OPTIONS)
def test_the_same_tokens(sampling):
    plain, ahead = (list(engine.generate([1, 2, 3, 4, 5], sampling)) for engine in engines())
    assert [token.id for token in ahead] == [token.id for token in plain] and len(plain) == sampling.max_tokens
    for a, b in zip(plain, ahead, strict=True):
        assert [i for i, _ in a.alternatives] == [i for i, _ in b.alternatives]
        np.testing.assert_allclose([p for _, p in a.alternatives], [p for _, p in b.alternatives], atol=1e-6)
        assert (a.logprob is None) == (b.logprob is None) and (a.logprob is None or abs(a.logprob - b.logprob) < 1e-6)


@pytest.mark.parametrize("kind", [AheadStep, DrawingStep])
@pytest.mark.parametrize("states", KINDS)
def test_tokens_that_are_drawn_ahead(kind, states):
    """Of several sequences, one of them greedy, whether the device expects the right ones or others."""
    options = [Sampling(temperature=1.3, top_k=8, top_p=1, min_p=0, seed=seed, max_tokens=30 + seed) for seed in range(3)]
    options.append(Sampling(temperature=0, max_tokens=25))
    expected = [
        [t.id for t in Engine(MockStep(hashed, 64, 300), VOCAB, 300).generate([7, at], each)] for at, each in enumerate(options)
    ]
    step = kind(hashed, 64, 300, 4, KINDS[states])
    engine = Engine(step, VOCAB, 300)
    streams = [engine.submit(Request([7, at], each)) for at, each in enumerate(options)]
    for stream in streams:
        stream.task.background = True
    assert [[token.id for token in stream] for stream in streams] == expected
    if kind is DrawingStep:  # as many times as the company changed, or the 64 tokens of a run were done
        assert len(step.asked) <= 4 + 4 * 64 // 64
    else:
        assert len(step.asked) > 20


def test_a_draw_that_is_lost_is_made_again():
    """A run that fails takes none of the random numbers that were drawn ahead."""
    sampling = Sampling(temperature=1.3, top_k=8, top_p=1, min_p=0, seed=3, max_tokens=20)
    expected = [token.id for token in engines()[0].generate([1, 2], sampling)]
    step = DrawingStep(hashed, 64, 64)
    left = [9]

    def fail():
        left[0] -= 1
        if left[0] == 0:
            raise NumericError("once")

    step.fail = fail
    assert [token.id for token in Engine(step, VOCAB, 64).generate([1, 2], sampling)] == expected and left[0] < 0


@pytest.mark.parametrize("sampling", OPTIONS[:5])
@pytest.mark.parametrize("stop_after", [1, 3])
def test_what_is_left_early_can_be_taken_up(sampling, stop_after):
    for engine in engines():
        first = engine.generate([1, 2, 3], sampling)
        taken = [next(first).id for _ in range(stop_after)]
        first.close()
        again = engine.generate([1, 2, 3, *taken, 7], Sampling(temperature=0, max_tokens=4))
        fresh = engines()[0].generate([1, 2, 3, *taken, 7], Sampling(temperature=0, max_tokens=4))
        assert [token.id for token in again] == [token.id for token in fresh]


def test_generations_that_take_turns():
    plain, ahead = [], []
    for engine, got in zip(engines(), (plain, ahead), strict=True):
        one, two = (engine.generate([1, start], Sampling(temperature=0, max_tokens=6)) for start in (2, 5))
        got += [(a.id, b.id) for a, b in zip(one, two, strict=True)]
    assert ahead == plain and len(plain) == 6


@pytest.mark.parametrize("length", [6, 7, 8])
@pytest.mark.parametrize("top_k", [1, 4])
def test_the_edge_of_the_context(length, top_k):
    counts = []
    for engine in engines(context=8):
        generation = engine.generate([1] * length, Sampling(top_k=top_k, seed=1, max_tokens=None))
        counts.append(len(list(generation)))
        assert generation.finish_reason == "length"
    assert counts == [9 - length] * 2


@pytest.mark.parametrize("sampling", [Sampling(temperature=0, max_tokens=5), Sampling(top_k=4, seed=1, max_tokens=5)])
@pytest.mark.parametrize("at", [3, 5])
def test_broken_logits_fail_the_request_and_drop_the_prefix(sampling, at):
    def poisoned(ids):
        row = counting(ids)
        row[5] = np.nan if len(ids) == at else row[5]
        return row

    engine = engines(poisoned)[1]
    with pytest.raises(NumericError, match=f"position {at - 1}"):
        list(engine.generate([1, 2, 3], sampling))
    assert engine.cached == []


def test_a_stop_id_ends_it():
    engine = engines(counting)[1]
    generation = engine.generate([1], Sampling(temperature=0), frozenset({4}))
    assert [token.id for token in generation] == [2, 3] and generation.finish_reason == "stop"
    assert engine.cached == [1, 2, 3]


@pytest.mark.parametrize("sampling", OPTIONS[:5])
def test_an_observer_leaves_the_choice_to_the_device(sampling):
    plain, ahead = engines()
    expected, seen = [token.id for token in plain.generate([1, 2, 3, 4, 5], sampling)], []
    observer = lambda positions, routes: seen.append((positions.tolist(), routes[0].ids[:, 0].tolist()))  # noqa: E731
    ahead.observe(observer)
    generation = ahead.generate([1, 2, 3, 4, 5], sampling)
    found = [token.id for token in generation]
    assert found == expected and ahead.step.chosen == len(expected)
    ids = [1, 2, 3, 4, 5, *expected[:-1]]
    assert [position for positions, _ in seen for position in positions] == list(range(len(ids)))
    assert [expert for _, experts in seen for expert in experts] == [each % 4 for each in ids]
    ahead.unobserve(observer)
    assert not ahead.step.watched
    list(ahead.generate([7], sampling))
    assert len(seen) == 2 + len(expected) - 1


def test_observers_come_and_go_in_the_middle_of_an_answer():
    greedy = Sampling(temperature=0, max_tokens=8)
    expected = [token.id for token in engines()[0].generate([1, 2], greedy)]
    engine, first, second = engines()[1], [], []
    observers = [lambda positions, _, seen=seen: seen.extend(positions.tolist()) for seen in (first, second)]
    generation, found = engine.generate([1, 2], greedy), []
    for at, token in enumerate(generation):
        found.append(token.id)
        if at in (2, 4):
            engine.observe(observers[at // 4])
        if at == 5:
            engine.unobserve(observers[0])
            assert engine.step.watched  # the other one is still told
    assert found == expected
    assert first == [4, 5, 6] and second == [6, 7, 8]
    with pytest.raises(ValueError):
        engine.unobserve(observers[0])


def test_what_an_observer_raises_fails_the_answer():
    engine = engines()[1]

    def refuse(positions, routes):
        if positions[0] == 3:
            raise NumericError("a router gave NaN")

    engine.observe(refuse)
    with pytest.raises(NumericError, match="router"):
        list(engine.generate([1, 2, 3], Sampling(temperature=0, max_tokens=4)))
    assert engine.cached == []
