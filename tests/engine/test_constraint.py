"""Requests that may say some tokens only: alone, in company, after a preemption, and where the constraint itself fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from lacewing.engine.constraint import _pool
from lacewing.engine.engine import Engine, Request
from lacewing.engine.sampling import Sampler
from lacewing.errors import GrammarError, NumericError
from lacewing.options import Sampling
from tests.engine.mock import KINDS, VOCAB, AheadStep, MockStep, SeeingStep, counting, hashed

END = 0  # the stop id
SAMPLINGS = [
    Sampling(temperature=0, max_tokens=12),
    Sampling(temperature=0.9, top_k=5, seed=3, max_tokens=12),
    Sampling(temperature=1.1, top_k=0, seed=3, max_tokens=12),  # looks at whole rows
    Sampling(temperature=1, top_k=4, seed=3, logprobs=3, max_tokens=12),
    Sampling(temperature=1, top_k=4, seed=3, logit_bias={5: 3.0, 8: -2.0}, max_tokens=12),
    Sampling(temperature=1, top_k=4, seed=3, logit_bias={5: 3.0}, logprobs=2, max_tokens=12),
    Sampling(temperature=0, repeat_penalty=1.4, max_tokens=12),
]


def words(ids: set[int]) -> np.ndarray:
    mask = np.zeros(-(-VOCAB // 32), np.uint32)
    for token in ids:
        mask[token // 32] |= np.uint32(1 << token % 32)
    return mask


class Steps:
    """The token at each place is one of `allowed(tokens before)`; the answer may end when `least` have come, and has at `most`."""

    def __init__(self, allowed: Callable[[list[int]], set[int] | None], least: int = 3, most: int = 8):
        self.allowed, self.least, self.most = allowed, least, most
        self.seen: list[int] = []
        self.made = 0
        self.threads: set[int] = set()

    def mask(self) -> np.ndarray | None:
        self.made += 1
        self.threads.add(threading.get_ident())
        ids = self.allowed(self.seen)
        return None if ids is None else words(ids | ({END} if len(self.seen) >= self.least else set()))

    def accept(self, token: int) -> bool:
        ids = self.allowed(self.seen)
        self.seen.append(token)
        return ids is None or token in ids

    def stopped(self) -> bool:
        return len(self.seen) >= self.most


def residues(seen: list[int]) -> set[int]:
    """One in five, others at each place."""
    return {token for token in range(1, VOCAB) if token % 5 == (len(seen) + sum(seen)) % 5}


def make(kind=MockStep, script=hashed, **options) -> Engine:
    step = kind(script, **{"chunk": 512, "context": 1024, "rows": 4} | options)
    return Engine(step, VOCAB, step.limits.context)


def expected(ids: list[int], sampling: Sampling, constraint: Steps, script=hashed) -> list[int]:
    """By hand: whole rows, masked."""
    sampler, history = Sampler(sampling, VOCAB), list(ids)
    while len(history) - len(ids) < (sampling.max_tokens or 0) and not constraint.stopped():
        token = sampler.pick(script(history), history, constraint.mask()).id
        if token == END:
            break
        assert constraint.accept(token)
        history.append(token)
    return history[len(ids) :]


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("kind", [MockStep, SeeingStep, AheadStep])
def test_only_what_is_allowed_comes(kind, sampling):
    engine, constraint = make(kind), Steps(residues)
    stream = engine.submit(Request([1, 2, 3], sampling, frozenset({END}), constraint=constraint))
    tokens = list(stream)
    assert [token.id for token in tokens] == expected([1, 2, 3], sampling, Steps(residues))
    assert stream.finish_reason == "stop" and constraint.seen == [token.id for token in tokens]
    assert all(token.id % 5 == (at + sum(constraint.seen[:at])) % 5 for at, token in enumerate(tokens))
    assert constraint.made <= len(tokens) + 1
    for at, token in enumerate(tokens):  # log-probabilities stay those of the whole raw row
        if sampling.logprobs:
            row = hashed([1, 2, 3, *constraint.seen[:at]]).astype(float)
            raw = row - np.log(np.exp(row).sum())
            assert [i for i, _ in token.alternatives] == np.argsort(-raw, kind="stable")[: sampling.logprobs].tolist()
            found = {token.id: token.logprob, **dict(token.alternatives)}
            np.testing.assert_allclose(list(found.values()), raw[list(found)], atol=1e-5)


def test_masks_are_made_while_the_step_runs_or_by_whoever_waits_for_them():
    engine, constraint = make(), Steps(residues)
    made: list[int] = []

    def fail() -> None:
        deadline = time.monotonic() + 10
        while constraint.made <= len(made) and time.monotonic() < deadline:
            time.sleep(0.001)
        made.append(constraint.made)

    engine.step.fail = fail  # called within the run
    tokens = list(engine.submit(Request([1, 2, 3], SAMPLINGS[0], frozenset({END}), constraint=constraint)))
    assert made == list(range(1, 1 + len(made))) and len(made) >= len(tokens)
    assert threading.get_ident() not in constraint.threads
    busy = threading.Event()
    waiting = [_pool().submit(busy.wait, 10) for _ in range(8)]  # nobody else has time
    constraint = Steps(residues)
    stream = make().submit(Request([1, 2, 3], SAMPLINGS[0], frozenset({END}), constraint=constraint))
    assert [token.id for token in stream] == [token.id for token in tokens]
    assert constraint.threads == {threading.get_ident()}
    busy.set()
    assert all(each.result() for each in waiting)


def test_what_needs_no_mask_has_none():
    """Such as a model that still thinks: a device may choose ahead, until what is allowed changes."""
    free = lambda seen: None if len(seen) < 4 else residues(seen)  # noqa: E731
    for sampling in (SAMPLINGS[0], Sampling(temperature=1.1, top_k=6, seed=3, max_tokens=12)):
        engine = make(AheadStep)
        stream = engine.submit(Request([1, 2], sampling, frozenset({END}), constraint=Steps(free)))
        assert [token.id for token in stream] == expected([1, 2], sampling, Steps(free))
        assert engine.step.asked and max(position for position, _ in engine.step.asked) <= 4
    engine = make(AheadStep)
    list(engine.submit(Request([1, 2], SAMPLINGS[0], frozenset({END}), constraint=Steps(residues))))
    assert not engine.step.asked


def test_a_constraint_that_breaks_while_the_device_is_ahead_fails_its_request_alone():
    def broken(seen):
        if len(seen) == 3:
            raise ValueError("no mask")

    engine = make(AheadStep, rows=2)
    good, bad = (
        engine.submit(Request([1, 2], SAMPLINGS[0], frozenset({END}), constraint=Steps(each)))
        for each in (lambda seen: None, broken)
    )
    bad.task.background = good.task.background = True
    with pytest.raises(ValueError, match="no mask"):
        list(bad)
    assert [token.id for token in good] == expected([1, 2], SAMPLINGS[0], Steps(lambda seen: None))


def test_a_constraint_that_has_ended_ends_the_request_with_its_last_token():
    engine = make(script=counting)
    stream = engine.submit(Request([1], Sampling(temperature=0), constraint=Steps(lambda seen: {7}, most=3)))
    assert [token.id for token in stream] == [7, 7, 7] and stream.finish_reason == "stop"
    assert engine.step.runs == [1, 1, 1] and engine.cached == [1, 7, 7]


def test_the_end_is_chosen_only_where_it_is_allowed():
    def ending(ids: list[int]) -> np.ndarray:
        row = hashed(ids)
        row[END] = 99
        return row

    for kind in (MockStep, SeeingStep, AheadStep):
        stream = make(kind, ending).submit(Request([1], SAMPLINGS[1], frozenset({END}), constraint=Steps(residues, least=4)))
        assert len(list(stream)) == 4 and stream.finish_reason == "stop"
    short = Sampling(temperature=0, max_tokens=2)
    stream = make(script=ending).submit(Request([1], short, frozenset({END}), constraint=Steps(residues, least=4)))
    assert len(list(stream)) == 2 and stream.finish_reason == "length"


@pytest.mark.parametrize("kind", [MockStep, SeeingStep, AheadStep])
@pytest.mark.parametrize("states", ["full", "everything", "only units"])
def test_in_company_with_preemption_and_shared_beginnings(kind, states):
    """Those without a constraint say what they say alone, those with one what they say by hand."""
    prompts = [[at % 31 for at in range(160)], [at % 31 for at in range(150)] + [9], [4, 5], [6] * 140, [1, 2, 3]]
    samplings = [SAMPLINGS[0], SAMPLINGS[1], SAMPLINGS[3], SAMPLINGS[0], SAMPLINGS[1]]
    bound = [True, False, True, True, False]
    alone = []
    for ids, sampling in zip(prompts, samplings, strict=True):
        alone.append(list(make(kind, states=KINDS[states]).generate(ids, sampling, frozenset({END}))))
    engine = make(kind, states=KINDS[states], rows=3)
    streams = [
        engine.submit(Request(ids, sampling, frozenset({END}), constraint=Steps(residues) if each else None))
        for ids, sampling, each in zip(prompts, samplings, bound, strict=True)
    ]
    for at in range(80):
        if at in (3, 5, 8) and len(engine.scheduler.running) > 1:
            engine.scheduler._preempt(engine.scheduler.running[-1], first=True)
        engine.advance()
    for stream, ids, sampling, each, free in zip(streams, prompts, samplings, bound, alone, strict=True):
        found = list(stream)
        assert [token.id for token in found] == (expected(ids, sampling, Steps(residues)) if each else [token.id for token in free])
        assert each or found == free


class Broken(Steps):
    """Fails at a place."""

    def __init__(self, at: int, mask: object = None):
        super().__init__(residues, most=20)
        self.at, self.wrong = at, mask

    def mask(self):
        if len(self.seen) != self.at:
            return super().mask()
        if self.wrong is None:
            raise GrammarError("the lexer became too complex")
        return self.wrong


@pytest.mark.parametrize("kind", [MockStep, SeeingStep, AheadStep])
@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (lambda: Broken(2), "became too complex"),
        (lambda: Broken(2, words(set())), "allows no token"),
        (lambda: Broken(2, np.ones(7, np.uint32)), r"shape \(7,\), not uint32 \(1,\)"),
        (lambda: Refusing(2), "may not come next"),
    ],
)
def test_a_constraint_that_fails_fails_its_request_alone(kind, constraint, message):
    engine = make(kind)
    other = engine.submit(Request([4, 5], SAMPLINGS[1], frozenset({END})))
    stream = engine.submit(Request([1, 2, 3], SAMPLINGS[0], frozenset({END}), constraint=constraint()))
    tokens = []
    with pytest.raises(GrammarError, match=message):
        tokens.extend(stream)
    assert list(other) == list(make(kind).generate([4, 5], SAMPLINGS[1], frozenset({END})))
    assert engine.held([1, 2, 3]) == 3  # what was run is as good as ever


class Refusing(Steps):
    """Its mask allows what it does not accept."""

    def __init__(self, at: int):
        super().__init__(residues)
        self.at = at

    def accept(self, token: int) -> bool:
        return super().accept(token) and len(self.seen) <= self.at


@pytest.mark.parametrize("kind", [MockStep, SeeingStep, AheadStep])
def test_a_mask_of_what_the_model_gives_no_probability(kind):
    def poor(ids: list[int]) -> np.ndarray:
        row = hashed(ids)
        row[7] = -np.inf
        return row

    engine = make(kind, poor)
    other = engine.submit(Request([4, 5], SAMPLINGS[0], frozenset({END})))
    stream = engine.submit(Request([1, 2, 3], SAMPLINGS[0], frozenset({END}), constraint=Steps(lambda seen: {7})))
    with pytest.raises(NumericError, match="a grammar drive every token to infinity"):
        list(stream)
    assert [token.id for token in other] == [
        token.id for token in make(kind, poor).generate([4, 5], SAMPLINGS[0], frozenset({END}))
    ]


def test_a_run_that_is_cancelled_is_run_again_with_the_same_mask():
    engine, constraint = make(), Steps(residues)
    stream = engine.submit(Request([1, 2, 3], SAMPLINGS[0], frozenset({END}), constraint=constraint))
    failures = [1]

    def fail() -> None:
        if failures and len(constraint.seen) == 2:
            failures.pop()
            engine.step._abort.set()
            engine.step._stop_if_aborted()

    engine.step.fail = fail
    tokens = [token.id for token in stream]
    assert tokens == expected([1, 2, 3], SAMPLINGS[0], Steps(residues)) and not failures
    assert constraint.made <= len(tokens) + 1
