"""What a sequence says does not depend on who else is served: random arrivals, edits, cancels, aborted runs and too little memory,
on every kind of state. The mock's pages know which token they hold, so that a page in a wrong place shows."""

from __future__ import annotations

import gc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lacewing.engine.engine import Engine, Request
from lacewing.engine.sampling import Sampler
from lacewing.errors import Cancelled, NumericError
from lacewing.options import Sampling
from lacewing.program.states import PagedState
from tests.engine.mock import KINDS, VOCAB, AheadStep, MockStep, counting

CONTEXT = 640
SAMPLINGS = (
    Sampling(temperature=0),
    Sampling(temperature=0.9, top_k=5, seed=3),
    Sampling(temperature=1.1, top_k=0, top_p=0.9, seed=4),
    Sampling(temperature=0.7, repeat_penalty=1.4, seed=5),
    Sampling(temperature=0, logprobs=2),
)
RANDOM = np.random.default_rng(0)
BASES = [RANDOM.integers(0, VOCAB, CONTEXT).tolist() for _ in range(3)]


def script(ids: list[int]) -> np.ndarray:
    """Logits that depend on every id and its place, cheaply."""
    places = np.arange(1, len(ids) + 1)
    seed = int(((np.asarray(ids) + 7) * places * 31).sum() % 2**31)
    return ((np.arange(1, VOCAB + 1) * (seed + 12345)) % 1009).astype(np.float32) / 150


def seen(step: MockStep, ids: list[int]) -> list[int]:
    """What the groups of a step show to a query at the last position."""
    reaches = [each.state.first_seen(len(ids) - 1) if isinstance(each.state, PagedState) else 0 for each in step.groups]
    return [VOCAB] * min(reaches) + ids[min(reaches) :]


def alone(step: MockStep, prompt: list[int], sampling: Sampling, count: int) -> list[int]:
    """What a request is to say, told without an engine."""
    ids, sampler = list(prompt), Sampler(sampling, VOCAB)
    while len(ids) - len(prompt) < min(count, CONTEXT + 1 - len(prompt)):
        ids.append(sampler.pick(script(seen(step, ids)), ids).id)
    return ids[len(prompt) :]


def check_holders(engine: Engine) -> None:
    """Every page is held as often as somebody holds it."""
    scheduler = engine.scheduler
    found: list[Counter[int]] = [Counter() for _ in engine.step.groups]
    for task in scheduler.running:
        assert task.sequence is not None
        for group, table in enumerate(task.sequence.tables):
            found[group].update([*table, *(unit for unit in [task.sequence.next_units[group]] if unit >= 0)])
    for node in scheduler.tree._below(scheduler.tree.root):
        for index, group in enumerate(scheduler.pages.unlimited):
            found[group][node.pages[index]] += 1
    for resume in scheduler.tree._resumes:
        assert resume.node.resume is resume and resume.node.parent is not None
        for group, table in enumerate(resume.tables):
            found[group].update(table)
    for group, holders in enumerate(scheduler.pages.holders):
        assert {page: count for page, count in enumerate(holders) if count} == dict(found[group])
        assert scheduler.pages.used(group) == len(found[group])


class Talk:
    """A request, what it has said so far, and what it is to say."""

    def __init__(self, engine: Engine, step: MockStep, prompt: list[int], sampling: Sampling, count: int, mark: int, now: bool):
        self.prompt, self.said, self.cancelled = prompt, [], False
        self.expected = alone(step, prompt, sampling, count)
        options = {**sampling.__dict__, "max_tokens": count}
        request = Request(prompt, Sampling(**options), cancelled=lambda: self.cancelled, marks=(mark,))
        self.stream = engine.submit(request) if now else engine.generate(prompt, request.sampling, marks=(mark,))

    def read(self, count: int) -> None:
        for token in self.stream:
            self.said.append(token.id)
            if len(self.said) >= count:
                break

    def check(self) -> None:
        if self.cancelled:
            assert self.said == self.expected[: len(self.said)]
        else:
            assert self.said == self.expected


prompts = st.tuples(st.integers(0, 2), st.integers(1, CONTEXT - 30), st.lists(st.integers(0, VOCAB - 1), max_size=4))
actions = st.one_of(
    st.tuples(st.just("new"), prompts, st.integers(0, len(SAMPLINGS) - 1), st.integers(1, 25), st.booleans()),
    st.tuples(
        st.just("edit"), st.integers(0, 9), st.integers(0, 40), st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=200)
    ),
    st.tuples(st.just("read"), st.integers(0, 9), st.integers(1, 12)),
    st.tuples(st.just("cancel"), st.integers(0, 9), st.sampled_from(["close", "callable", "drop"])),
    st.tuples(st.just("advance")),
    st.tuples(st.just("abort")),
    st.tuples(st.just("forget")),
)


class Play:
    def __init__(self, states, rows: int, chunk: int, share: float, ahead: bool):
        kind = AheadStep if ahead else MockStep
        self.step = kind(script, chunk, CONTEXT, rows, states)
        self.engine = Engine(self.step, VOCAB, CONTEXT)
        pages = self.engine.scheduler.pages
        pages.budget = int(pages.budget * share)
        self.talks: list[Talk] = []
        self.aborts = 0
        self.step.fail = self.fail

    def fail(self) -> None:
        if self.aborts:
            self.aborts -= 1
            raise Cancelled("the run was aborted")

    def open(self) -> list[Talk]:
        return [talk for talk in self.talks if talk.stream is not None]

    def act(self, action) -> None:
        what, *given = action
        if what == "new":
            (base, length, extra), sampling, count, now = given
            prompt = [*BASES[base][:length], *extra]
            self.talks.append(Talk(self.engine, self.step, prompt, SAMPLINGS[sampling], count, length // 2, now))
        elif what == "edit" and self.talks:
            talk = self.talks[given[0] % len(self.talks)]
            whole = [*talk.prompt, *talk.said]
            prompt = [*whole[: max(0, len(whole) - given[1])], *given[2]][:CONTEXT]
            self.talks.append(Talk(self.engine, self.step, prompt, SAMPLINGS[given[0] % len(SAMPLINGS)], 6, len(whole), False))
        elif what == "read" and self.open():
            talk = self.open()[given[0] % len(self.open())]
            talk.read(len(talk.said) + given[1])
        elif what == "cancel" and self.open():
            talk = self.open()[given[0] % len(self.open())]
            talk.cancelled = True
            if given[1] == "close":
                talk.stream.close()
            elif given[1] == "drop":
                talk.stream = None
                gc.collect(0)
        elif what == "advance":
            self.engine.advance()
        elif what == "abort":
            self.aborts += 1
        elif what == "forget":
            self.engine.forget()
        check_holders(self.engine)

    def finish(self) -> None:
        for talk in self.open():
            talk.read(10**6)
        for talk in self.talks:
            talk.check()
        self.engine.advance()
        check_holders(self.engine)
        scheduler = self.engine.scheduler
        assert not scheduler.running and not scheduler.waiting
        self.engine.forget()
        assert [scheduler.pages.used(group) for group in range(len(self.step.groups))] == [0] * len(self.step.groups)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(
    st.lists(actions, min_size=3, max_size=25),
    st.integers(1, 4),
    st.sampled_from([1, 7, 64, 512]),
    st.sampled_from([0.2, 0.6, 1.0]),
    st.booleans(),
)
def test_random_company(kind, script, rows, chunk, share, ahead):
    play = Play(KINDS[kind], rows, chunk, share, ahead)
    for action in script:
        play.act(action)
    play.finish()


def test_tokens_that_are_there_are_taken_without_a_run():
    step = MockStep(counting, context=64, rows=2)
    engine = Engine(step, VOCAB, 64)
    stream = engine.submit(Request([1, 2], Sampling(temperature=0, max_tokens=3)))
    assert stream.take() == [] and not stream.done and step.runs == []
    found = []
    while not stream.done:
        engine.advance()
        found += [token.id for token in stream.take()]
        assert stream.finish_reason is None or stream.done
    assert found == [3, 4, 5] and stream.finish_reason == "length" and stream.error is None


def test_a_request_that_fails_says_why_without_being_iterated():
    step = MockStep(lambda ids: np.full(VOCAB, np.nan, np.float32), context=64, rows=2)
    engine = Engine(step, VOCAB, 64)
    stream = engine.submit(Request([1, 2], Sampling(temperature=0)))
    engine.advance()
    assert stream.take() == [] and stream.done and isinstance(stream.error, NumericError) and stream.finish_reason is None
