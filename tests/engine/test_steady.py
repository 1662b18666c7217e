"""Runs that are made like the one before: they bring what others bring, and end with whatever else there is to do."""

from __future__ import annotations

import numpy as np
import pytest

from lacewing.engine.engine import Request
from lacewing.engine.runs import Steady
from lacewing.errors import NumericError
from lacewing.options import Sampling
from tests.engine.mock import KINDS, AheadStep, MockStep, SeeingStep, hashed
from tests.engine.test_recovery import drain, ids_of, make

LONG = Sampling(temperature=0, max_tokens=300)
PROMPTS = [[1, 2, 3], [4] * 120, [5, 6]]


@pytest.fixture
def steady(monkeypatch) -> list[int]:
    """The tasks of each such run."""
    run, found = Steady.run, list[int]()

    def noted(self, step):
        found.append(len(self.tasks))
        return run(self, step)

    monkeypatch.setattr(Steady, "run", noted)
    return found


@pytest.mark.parametrize(
    "sampling", [LONG, Sampling(temperature=1, top_k=5, seed=3, max_tokens=300), Sampling(seed=5, max_tokens=300)]
)
@pytest.mark.parametrize("kind", [MockStep, SeeingStep])
def test_they_bring_what_each_would_be_told_alone(steady, kind, sampling):
    """Across the borders of pages, and while others come and go."""
    expected = [ids_of(make(MockStep).generate(prompt, sampling)) for prompt in PROMPTS]
    assert not steady  # whoever takes his tokens himself may stop taking them
    engine = make(kind, context=2048)
    streams = [engine.submit(Request(prompt, sampling)) for prompt in PROMPTS[:2]]
    for _ in range(50):
        engine.advance()
    streams.append(engine.submit(Request(PROMPTS[2], sampling)))
    drain(engine)
    assert [ids_of(stream) for stream in streams] == expected
    assert min(steady.count(1), steady.count(2)) > 40 and steady.count(3) > 200 and len(steady) > 0.9 * len(engine.step.runs)
    stats = [stream.stats for stream in streams]
    assert [each.generated_tokens for each in stats] == [300] * 3 and all(each.generate_seconds > 0 for each in stats)
    counters = engine.scheduler.counters
    assert sum(counters.runs.values()) == len(engine.step.runs)
    assert sum(tokens * count for tokens, count in counters.runs.items()) == sum(engine.step.runs)
    assert engine.cached == [*PROMPTS[2], *expected[2]][:-1]  # what ran last can be taken up
    assert engine.held([*PROMPTS[0], *expected[0]]) == len(PROMPTS[0]) + 299


def test_who_leaves_is_not_run_again(steady):
    engine = make(MockStep, context=2048)
    gone, stays = (engine.submit(Request(prompt, LONG)) for prompt in PROMPTS[:2])
    for _ in range(20):
        engine.advance()
    assert steady and engine.scheduler._steady is not None
    said = len(gone.take())
    gone.abandon()
    engine.advance()
    assert gone.finish_reason == "cancelled" and not gone.take() and said == 20
    drain(engine)
    assert engine.scheduler._steady is None and len(ids_of(stays)) == 300


@pytest.mark.parametrize("kind", [MockStep, SeeingStep])
def test_rows_that_are_no_numbers_fail_their_own_task(steady, kind):
    def script(ids: list[int]) -> np.ndarray:
        row = hashed(ids)
        return row * np.nan if ids[0] == 1 and len(ids) > 40 else row

    engine = make(kind, context=2048)
    engine.step.script = script
    bad, good = (engine.submit(Request(prompt, LONG)) for prompt in PROMPTS[:2])
    drain(engine)
    assert len(bad.take()) == 38 and isinstance(bad.error, NumericError)
    assert ids_of(good) == ids_of(make(MockStep).generate(PROMPTS[1], LONG)) and len(steady) > 200


@pytest.mark.parametrize("kind, states", [(AheadStep, "full"), (MockStep, "units"), (MockStep, "windows")])
def test_devices_that_choose_and_other_states_have_their_own_way(steady, kind, states):
    engine = make(kind, KINDS[states])
    streams = [engine.submit(Request(prompt, LONG)) for prompt in PROMPTS]
    drain(engine)
    assert not steady and all(len(ids_of(stream)) == 300 for stream in streams)


def test_an_observer_sees_each_run(steady):
    engine, seen = make(MockStep), []
    stream = engine.submit(Request(PROMPTS[0], Sampling(temperature=0, max_tokens=40)))
    for _ in range(20):
        engine.advance()
    before = len(steady)
    engine.observe(lambda positions, _: seen.append(positions.tolist()))
    drain(engine)
    assert before > 10 and len(steady) == before and len(ids_of(stream)) == 40
    assert seen == [[position] for position in range(22, 42)]
