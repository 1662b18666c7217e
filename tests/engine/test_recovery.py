"""A run that fails: who made it fail is found, and nobody else notices, on any kind of state."""

from __future__ import annotations

import numpy as np
import pytest

import lacewing
from lacewing.engine.engine import Engine, Request
from lacewing.errors import BackendError, Cancelled, DeviceLostError, OptionError
from lacewing.options import Sampling
from tests.checkpoints import tiny
from tests.engine.mock import KINDS, VOCAB, AheadStep, MockStep, counting, hashed
from tests.engine.test_sequences import check_holders

GREEDY = Sampling(temperature=0, max_tokens=12)
DRAWN = Sampling(temperature=1, top_k=5, seed=3, max_tokens=12)
WHOLE = Sampling(temperature=1, top_k=0, min_p=0, top_p=1, seed=3, max_tokens=12, repeat_penalty=0.9)
POISON = 13


class Faulty(MockStep):
    """Fails, when all is written, a run of a sequence that begins with `POISON` and has reached position `at`."""

    at = 4
    error: Exception = RuntimeError("a kernel broke")

    def _run(self, batch):
        rows = super()._run(batch)
        for row, first, count in batch.parts:
            ids = self._seen(batch, row, int(batch.positions[first + count - 1]), batch.tokens[first : first + count],
                             int(batch.positions[first]))  # fmt: skip
            if ids[0] == POISON and len(ids) > self.at:
                raise self.error
        return rows


class FaultyAhead(Faulty, AheadStep):
    pass


def make(kind=Faulty, states=KINDS["full"], **options):
    step = kind(hashed, **{"chunk": 512, "context": 640, "rows": 6, "states": states} | options)
    return Engine(step, VOCAB, step.limits.context)


def ids_of(stream):
    return [token.id for token in stream]


def drain(engine):
    for _ in range(2000):
        if not engine.advance():
            return
    raise AssertionError("it does not end")


PROMPTS = [[1, 2, 3], [4] * 150, [5, 6], [7] * 20]


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN, WHOLE], ids=["greedy", "drawn", "whole row"])
@pytest.mark.parametrize("kind", [Faulty, FaultyAhead])
@pytest.mark.parametrize("states", ["full", "windows", "units"])
@pytest.mark.parametrize("at", [1, 4, 8])
def test_who_makes_a_run_fail_fails_alone(sampling, kind, states, at):
    expected = [ids_of(make(states=KINDS[states]).generate(prompt, sampling)) for prompt in PROMPTS]
    engine = make(kind, KINDS[states])
    engine.step.at = at
    streams = [engine.submit(Request(prompt, sampling)) for prompt in (*PROMPTS[:2], [POISON, 2, 3], *PROMPTS[2:])]
    bad = streams.pop(2)
    drain(engine)
    assert [ids_of(stream) for stream in streams] == expected
    said = bad.take()
    assert len(said) == max(0, at - 2) and isinstance(bad.error, RuntimeError) and bad.finish_reason is None
    assert engine.scheduler.counters.faults >= 1 and str(engine.scheduler.last_fault) == "a kernel broke"
    check_holders(engine)
    assert not engine.scheduler.running and not engine.scheduler.waiting
    engine.forget()
    assert not any(engine.scheduler.pages.used(group) for group in range(len(engine.step.groups)))


def test_two_of_them_are_both_found():
    engine = make()
    streams = [engine.submit(Request([first, 2, 3], GREEDY)) for first in (POISON, 1, POISON, 2)]
    drain(engine)
    assert [stream.task.error is None for stream in streams] == [False, True, False, True]
    assert [len(stream.take()) for stream in streams] == [2, 12, 2, 12]


def test_a_fault_of_the_backend_drops_what_the_bad_one_left():
    """Its pages may be what broke the run; those of the others stay."""
    engine = make()
    engine.step.error = BackendError("the GPU refused the run")
    good, bad = (engine.submit(Request([first, 2, 3], GREEDY)) for first in (1, POISON))
    drain(engine)
    assert isinstance(bad.task.error, BackendError) and len(ids_of(good)) == 12
    assert engine.held([POISON, 2, 3]) == 0 and engine.held([1, 2, 3]) == 3


def test_a_batch_that_always_fails_goes_on_one_by_one():
    """Such as for want of memory: nobody fails who can run alone."""
    engine = make(MockStep)
    engine.step.fail = lambda: None
    runs = engine.step.runs

    def fail():
        if runs[-1] > 1:
            raise MemoryError

    streams = [engine.submit(Request([first], DRAWN)) for first in (1, 2, 3)]
    expected = [ids_of(make().generate([first], DRAWN)) for first in (1, 2, 3)]
    engine.step.fail = fail
    drain(engine)
    assert [ids_of(stream) for stream in streams] == expected
    assert engine.scheduler.counters.faults == 12


def test_those_who_arrive_meanwhile_are_not_suspected():
    engine = make()
    streams = [engine.submit(Request([first, 2, 3], GREEDY)) for first in (POISON, 1, 2)]
    while not engine.scheduler.counters.faults:
        engine.advance()
    late = engine.submit(Request([3, 4], GREEDY))
    drain(engine)
    assert isinstance(streams[0].task.error, RuntimeError) and [len(ids_of(each)) for each in (*streams[1:], late)] == [12, 12, 12]
    assert not any(task.suspect for task in (late.task, streams[1].task, streams[2].task))


def test_a_device_that_is_lost_fails_all_at_once():
    engine = make(context=2000, rows=2)
    streams = [engine.submit(Request([first] * 20, GREEDY)) for first in range(5)]
    engine.advance()
    engine.step.fail = lambda: (_ for _ in ()).throw(DeviceLostError("the GPU was lost"))
    runs = len(engine.step.runs)
    assert not engine.advance()
    assert len(engine.step.runs) == runs + 1 and not engine.scheduler.running and not engine.scheduler.waiting
    assert all(isinstance(stream.task.error, DeviceLostError) for stream in streams)
    assert engine.scheduler.pages.used(0) == 0
    with pytest.raises(DeviceLostError):
        list(engine.generate([1], GREEDY))


def test_a_closed_step_fails_all():
    engine = make()
    streams = [engine.submit(Request([first], GREEDY)) for first in (1, 2)]
    engine.advance()
    engine.step.close()
    drain(engine)
    for stream in streams:
        assert isinstance(stream.task.error, OptionError) and "closed" in str(stream.task.error)


@pytest.mark.parametrize("error", [Cancelled("aborted"), RuntimeError("once")])
def test_a_run_that_is_lost_after_its_choices_draws_the_same_again(error):
    engine = make(MockStep)
    sampling = [DRAWN, WHOLE, GREEDY]
    expected = [ids_of(make().generate([1, 2], each)) for each in sampling]
    failing = [error, None, error, None, None] * 20

    def watch(positions, routes):
        if (found := failing.pop()) is not None:
            raise found

    engine.observe(watch)
    streams = [engine.submit(Request([1, 2], each)) for each in sampling]
    drain(engine)
    if isinstance(error, Cancelled):
        assert [ids_of(stream) for stream in streams] == expected
    else:  # those that failed alone say a beginning of it
        said = [[token.id for token in stream.take()] for stream in streams]
        assert all(found == whole[: len(found)] for found, whole in zip(said, expected, strict=True)) and any(said)


def test_a_page_that_cannot_be_had_fails_its_task_whatever_is_raised(monkeypatch):
    engine = make(MockStep)
    grow = engine.step.grow

    def broken(group, count):
        if count > 1:
            raise RuntimeError("the driver says no")
        grow(group, count)

    monkeypatch.setattr(engine.step, "grow", broken)
    small, large = engine.submit(Request([1], GREEDY)), engine.submit(Request([2] * 300, GREEDY))
    drain(engine)
    assert len(ids_of(small)) == 12 and isinstance(large.task.error, RuntimeError)


def test_a_sampler_that_fails_fails_its_request_alone(monkeypatch):
    engine = Engine(AheadStep(counting, 512, 640, 4), VOCAB, 640)
    streams = [engine.submit(Request([first], Sampling(temperature=1, top_k=3, seed=1, max_tokens=5))) for first in (1, 2)]

    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(streams[0].task.sampler, "pick_among", broken)
    drain(engine)
    assert isinstance(streams[0].task.error, ZeroDivisionError) and len(ids_of(streams[1])) == 5


@pytest.mark.parametrize("kind", ["llama", "gemma3", "deepseek3", "lfm2"])
def test_on_a_real_model_the_others_say_the_same_to_the_bit(kind, tmp_path, monkeypatch):
    options = Sampling(temperature=0.8, top_k=0, seed=5, max_tokens=12, logprobs=2)
    with lacewing.load(tiny(kind, "gguf", tmp_path), backend="cpu", context=512, threads=2, sequences=4) as model:
        engine, step = model.engine, model.engine.step
        random = np.random.default_rng(3)
        prompts = [random.integers(1, model.spec.vocab_size, count).tolist() for count in (150, 20, 3, 40)]
        poison = prompts[2]
        alone = []
        for ids in prompts:
            engine.forget()
            alone.append(list(engine.generate(ids, options)))
        engine.forget()
        run = step._run

        def broken(batch):
            rows = run(batch)
            for row, first, count in batch.parts:
                task = next(task for task in engine.scheduler.running if task.sequence and task.sequence.row == row)
                if task.request.ids == poison and int(batch.positions[first + count - 1]) >= 6:
                    rows[:] = np.nan  # what it leaves behind is of no use either
                    raise RuntimeError("injected")
            return rows

        monkeypatch.setattr(step, "_run", broken)
        streams = [engine.submit(Request(ids, options)) for ids in prompts]
        drain(engine)
        assert isinstance(streams[2].task.error, RuntimeError)
        assert [token.id for token in streams[2].take()] == [token.id for token in alone[2][:4]]
        assert [list(streams[index]) for index in (0, 1, 3)] == [alone[index] for index in (0, 1, 3)]
        assert engine.scheduler.counters.faults == 1
