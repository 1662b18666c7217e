"""What a run carries, who waits, who makes room, and how soon a cancelled run ends."""

from __future__ import annotations

import contextlib
import threading
import time

import numpy as np
import pytest

from lacewing.engine.engine import Engine, Request
from lacewing.engine.request import Task
from lacewing.errors import BackendError, NumericError, OptionError, OutOfMemoryError
from lacewing.options import Sampling
from lacewing.program.states import PAGE
from tests.engine.mock import KINDS, VOCAB, AheadStep, MockStep, counting, hashed
from tests.timing import in_time, timely

GREEDY = Sampling(temperature=0, max_tokens=6)
LONG = [at % 31 for at in range(300)]


def make(script=counting, kind=MockStep, **options):
    step = kind(script, **{"chunk": 512, "context": 1024, "rows": 4} | options)
    return Engine(step, VOCAB, step.limits.context)


def ids_of(stream):
    return [token.id for token in stream]


def drain(engine):
    while engine.advance():
        pass


# several at once


def test_a_run_carries_the_tokens_of_all_and_pieces_of_prompts():
    engine = make()
    streams = [engine.submit(Request([1, start], GREEDY)) for start in (5, 9)]
    engine.advance()
    assert engine.step.runs == [4]
    streams.append(engine.submit(Request(LONG, GREEDY)))
    engine.advance()
    assert engine.step.runs == [4, 2 + 32]  # nobody knows yet how fast prompts are
    drain(engine)
    assert [ids_of(stream) for stream in streams] == [[6, 7, 8, 9, 10, 11], [10, 11, 12, 13, 14, 15], [21, 22, 23, 24, 25, 26]]


def test_prompts_take_as_much_of_a_run_as_is_done_in_a_tenth_of_a_second():
    engine = make(chunk=400)
    streams = [engine.submit(Request([1], Sampling(temperature=0, max_tokens=30)))]
    engine.advance()
    engine.scheduler.costs.note([Task(Request([1], GREEDY), VOCAB)], 500, 0, 0.25)
    engine.step.runs.clear()
    streams.append(engine.submit(Request(LONG, GREEDY)))
    engine.advance()
    assert engine.step.runs[0] == 201  # with the answer's own token, which takes next to nothing here


def test_whoever_waits_runs_all():
    engine = make(rows=2)
    one, two = engine.generate([1], GREEDY), engine.submit(Request([5], GREEDY))
    assert ids_of(one) == [2, 3, 4, 5, 6, 7]
    assert two.stats.generated_tokens == 6 and engine.step.runs == [2] * 6 and ids_of(two) == [6, 7, 8, 9, 10, 11]


def test_nothing_is_generated_long_for_somebody_who_does_not_fetch_it():
    engine = make(rows=2)
    paused, other = engine.generate([1], Sampling(temperature=0)), engine.generate([5], Sampling(temperature=0, max_tokens=100))
    assert next(paused).id == 2
    assert len(ids_of(other)) == 100 and 1 <= paused.stats.generated_tokens <= 9
    assert next(paused).id == 3


@pytest.mark.parametrize("fetch", [next, lambda stream: stream.take()[0]])
def test_who_fetches_what_there_is_has_not_gone_away(fetch):
    """Also without having to wait, because others made the engine go on."""
    engine = make(rows=2)
    slow, other = engine.generate([1], Sampling(temperature=0)), engine.generate([5], Sampling(temperature=0, max_tokens=100))
    assert next(slow).id == 2
    for _ in range(3):
        next(other)
    time.sleep(0.06)
    before = slow.stats.generated_tokens
    next(other)
    assert slow.stats.generated_tokens == before > 1
    assert fetch(slow).id == 3
    next(other)
    assert slow.stats.generated_tokens == before + 1


def test_a_row_goes_from_one_who_has_gone_away_to_one_who_waits():
    engine = make(rows=1)
    paused = engine.generate([1, 2, 3], Sampling(temperature=0))
    assert next(paused).id == 4
    time.sleep(0.06)
    assert ids_of(engine.generate([9], GREEDY)) == [10, 11, 12, 13, 14, 15]
    assert paused.stats.generated_tokens == 1
    assert [next(paused).id for _ in range(3)] == [5, 6, 7]
    assert sum(engine.step.runs) == 3 + 6 + 3  # nothing was run twice


def test_a_loop_of_runs_ends_when_nobody_fetches_what_there_is():
    engine = make(rows=2)
    paused, other = engine.generate([1], Sampling(temperature=0)), engine.submit(Request([5], GREEDY))
    next(paused)
    drain(engine)
    assert other.stats.generated_tokens == 6 and paused.stats.generated_tokens <= 9
    assert next(paused).id == 3


def test_a_stream_that_is_dropped_no_longer_runs():
    engine = make(rows=1)
    dropped = engine.submit(Request([1], Sampling(temperature=0)))
    next(dropped)
    del dropped
    assert ids_of(engine.generate([9], GREEDY)) == [10, 11, 12, 13, 14, 15] and not engine.scheduler.running


def test_threads_share_runs():
    engine = make(hashed, rows=4)
    prompts = [[1, start, 3] for start in range(8)]
    sampling = Sampling(temperature=0, max_tokens=30)
    expected = [ids_of(make(hashed).generate(prompt, sampling)) for prompt in prompts]
    found = {}
    threads = [
        threading.Thread(target=lambda at=at: found.update({at: ids_of(engine.generate(prompts[at], sampling))})) for at in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[at] for at in range(8)] == expected


def test_a_prompt_that_others_share_is_run_once():
    engine = make(rows=3)
    first = engine.submit(Request([*LONG, 1], GREEDY))
    engine.advance()
    others = [engine.submit(Request([*LONG, start], GREEDY)) for start in (5, 9)]
    drain(engine)
    assert [each.stats.reused_tokens for each in (first, *others)] == [0, 300, 300]


# room


@pytest.mark.parametrize("length", [1, 2, 40, 128, 130, 300])
@pytest.mark.parametrize("kind", [MockStep, AheadStep])
def test_answers_to_one_prompt_read_it_once(kind, length):
    """However short it is; each says what it says alone, and goes on in pages of its own."""
    options = [Sampling(temperature=1.2, top_k=5, seed=seed, max_tokens=9) for seed in range(4)]
    ids = [at % 7 for at in range(length)]
    alone = [[token.id for token in Engine(MockStep(hashed, 512, 400), VOCAB, 400).generate(ids, each)] for each in options]
    step = kind(hashed, 512, 400, 4)
    engine = Engine(step, VOCAB, 1600)
    first = engine.submit(Request(ids, options[0]))
    others = [engine.submit(Request(ids, each), after=first) for each in options[1:]]
    assert [[token.id for token in stream] for stream in (first, *others)] == alone
    read = [count for start, count in step.ran if start < length]
    assert read == [length, 1, 1, 1]
    assert engine.held(ids) == length


def test_who_came_last_makes_room_and_says_the_same():
    sampling = Sampling(temperature=0, max_tokens=200)
    prompts = [[start] * 100 for start in range(4)]
    expected = [ids_of(make(hashed).generate(prompt, sampling)) for prompt in prompts]
    engine = make(hashed, context=5 * PAGE)
    for _ in range(100):
        engine.scheduler._lengths.note(1)  # those before were short, so that all four begin
    streams = [engine.submit(Request(prompt, sampling)) for prompt in prompts]
    drain(engine)
    assert [ids_of(stream) for stream in streams] == expected
    assert sum(engine.step.runs) > sum(len(prompt) + 199 for prompt in prompts)  # something was run again
    assert engine.scheduler.counters.preemptions > 0


def test_nobody_makes_room_where_answers_are_as_long_as_they_usually_are():
    sampling = Sampling(temperature=0, max_tokens=200)
    engine = make(counting, context=5 * PAGE)
    streams = [engine.submit(Request([start] * 100, sampling)) for start in range(4)]
    engine.advance()
    assert len(engine.scheduler.running) == 1  # two of three pages each would not fit five
    drain(engine)
    assert [len(ids_of(stream)) for stream in streams] == [200] * 4
    assert engine.scheduler.counters.preemptions == 0 and sum(engine.step.runs) == 4 * 299


def test_prompts_that_are_not_read_yet_have_their_pages_as_well():
    engine = make(context=7 * PAGE, chunk=64)
    streams = [engine.submit(Request([start] * 500, GREEDY)) for start in range(4)]
    engine.advance()
    assert [len(task.sequence.ids) for task in engine.scheduler.running] == [64] and len(engine.scheduler.waiting) == 3
    drain(engine)
    assert [len(ids_of(stream)) for stream in streams] == [6] * 4
    assert engine.scheduler.counters.preemptions == 0 and sum(engine.step.runs) == 4 * 505


def test_who_came_first_does_not_make_room_for_who_came_later():
    """Not even after it has had to wait itself: so nobody is put off again and again."""
    engine = make(counting)
    first, second = (engine.submit(Request([start], Sampling(temperature=0, max_tokens=20))) for start in (1, 2))
    engine.advance()
    engine.scheduler._preempt(first.task, first=True)
    engine.advance()
    assert engine.scheduler.running == [first.task, second.task]
    drain(engine)
    assert len(ids_of(first)) == len(ids_of(second)) == 20


def test_one_sequence_of_the_whole_context_always_fits():
    engine = make(hashed, context=1024, rows=4, states=KINDS["everything"])
    for start in range(3):
        list(engine.generate([start, *LONG, *LONG], GREEDY))
    stream = engine.generate([7] * 800, Sampling(temperature=0))
    assert len(ids_of(stream)) == 225 and stream.finish_reason == "length"


def test_who_waits_for_pages_is_admitted_when_there_are_some():
    engine = make(context=4 * PAGE)
    first = engine.submit(Request([1] * 300, Sampling(temperature=0, max_tokens=20)))
    engine.advance()
    second = engine.submit(Request([2] * 300, GREEDY))
    engine.advance()
    assert len(engine.scheduler.running) == 1
    drain(engine)
    assert len(ids_of(first)) == 20 and len(ids_of(second)) == 6


def test_who_has_gone_away_makes_room_first():
    """Else the one that waits would make room for itself, over and over."""
    engine = make(context=4 * PAGE)
    engine.scheduler.pages.budget = 3 * PAGE * 8
    paused = engine.generate([1] * 120, Sampling(temperature=0))
    said = [next(paused).id]
    time.sleep(0.06)
    assert len(ids_of(engine.generate([2] * 250, Sampling(temperature=0, max_tokens=20)))) == 20
    said += [next(paused).id for _ in range(20)]
    assert said == list(range(2, 23))


def test_too_little_memory_for_one_fails_it_and_nobody_else():
    engine = make(memory=[2])
    small, large = engine.submit(Request([1] * 20, GREEDY)), engine.submit(Request([2] * 400, GREEDY))
    drain(engine)
    assert len(ids_of(small)) == 6
    with pytest.raises(OutOfMemoryError, match="KV cache"):
        list(large)
    assert len(ids_of(engine.generate([3] * 200, GREEDY))) == 6


def test_nothing_is_held_before_it_is_needed():
    """So a large context costs nothing until it is used."""
    sizes = []
    for context in (512, 8192):
        engine = make(context=context)
        ids_of(engine.generate([1] * 100, GREEDY))
        sizes.append((list(engine.step.sizes), engine.step.state_bytes))
    assert sizes[0] == sizes[1] == ([1], PAGE * 8)


# what goes wrong


@pytest.mark.parametrize("kind", [MockStep, AheadStep])
@pytest.mark.parametrize(
    "sampling", [GREEDY, Sampling(temperature=1, top_k=3, seed=1, max_tokens=6), Sampling(top_k=0, max_tokens=6)]
)
def test_broken_logits_fail_one_sequence_alone(kind, sampling):
    def poisoned(ids):
        row = counting(ids)
        row[3] = np.nan if ids[0] == 13 and len(ids) == 5 else row[3]
        return row

    engine = make(poisoned, kind)
    streams = [engine.submit(Request([start, 2, 3], sampling)) for start in (1, 13, 2)]
    drain(engine)
    assert len(ids_of(streams[0])) == len(ids_of(streams[2])) == 6
    with pytest.raises(NumericError, match="position 4"):
        list(streams[1])
    assert engine.held([13, 2, 3, 4]) == 0 and engine.held([1, 2, 3, 4]) == 4


def test_a_step_that_fails_fails_all_that_it_ran():
    engine = make()
    streams = [engine.submit(Request([start], GREEDY)) for start in (1, 2)]
    engine.advance()
    engine.step.fail = lambda: (_ for _ in ()).throw(BackendError("the device is lost"))
    engine.advance()
    for stream in streams:
        assert next(stream).id in (2, 3)
        with pytest.raises(BackendError, match="lost"):
            next(stream)
        assert list(stream) == [] and stream.finish_reason is None


def test_an_interrupt_loses_nothing():
    engine = make()
    stream = engine.generate([1], GREEDY)
    assert next(stream).id == 2
    engine.step.fail = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    engine.step.fail = lambda: None
    assert ids_of(stream) == [3, 4, 5, 6, 7]


def test_closing_ends_all_and_holds_nothing():
    engine = make()
    streams = [engine.submit(Request([start], GREEDY)) for start in (1, 2)]
    engine.advance()
    engine.close()
    engine.step.close()
    for stream in streams:
        assert next(stream).id in (2, 3)
        with pytest.raises(OptionError, match="closed"):
            next(stream)
    assert engine.scheduler.pages.used(0) == 0 and engine.cached == []
    with pytest.raises(OptionError, match="closed"):
        list(engine.generate([1], GREEDY))


# cancelling


class SlowStep(MockStep):
    """A run of a prompt takes ten seconds, unless it is aborted."""

    def _run(self, batch):
        for _ in range(1000 if len(batch.tokens) > 20 else 0):
            self._stop_if_aborted()
            time.sleep(0.01)
        return super()._run(batch)


@pytest.mark.parametrize("way", ["callable", "another thread"])
@timely
def test_a_long_run_ends_soon_after_it_is_cancelled(way):
    engine = make(kind=SlowStep)
    other, flag = engine.submit(Request([5], Sampling(temperature=0, max_tokens=3))), threading.Event()
    stream = engine.generate([1] * 64, GREEDY, cancelled=flag.is_set)
    told = []

    def cancel():
        told.append(time.perf_counter())
        flag.set() if way == "callable" else stream.close()

    timer = threading.Timer(0.3, cancel)
    timer.start()
    assert ids_of(stream) == [] and stream.finish_reason == "cancelled"
    seconds = time.perf_counter() - told[0]
    assert ids_of(other) == [6, 7, 8]
    timer.join()
    in_time(seconds, 0.2)


def test_the_thread_that_asks_ends_when_there_is_nothing_to_ask(monkeypatch):
    monkeypatch.setattr("lacewing.engine.watcher._EVERY", 0.001)
    engine = make()
    ids_of(engine.generate([1], GREEDY, cancelled=lambda: False))
    watcher = engine.scheduler._watcher
    until = time.perf_counter() + 5
    while watcher._thread is not None and time.perf_counter() < until:
        time.sleep(0.01)
    assert watcher._thread is None
    ids_of(engine.generate([1], GREEDY, cancelled=lambda: False))
    assert watcher._thread is not None


def test_a_question_that_fails_fails_its_own_request():
    def broken():
        raise ZeroDivisionError

    engine = make()
    other, stream = engine.submit(Request([5], GREEDY)), engine.generate([1], GREEDY, cancelled=broken)
    with pytest.raises(ZeroDivisionError):
        next(stream)
    assert len(ids_of(other)) == 6


# the device's own choices


def test_a_device_chooses_ahead_for_several():
    engine = make(hashed, AheadStep)
    prompts = [[1, 2], [5, 6, 7], [9]]
    sampling = Sampling(temperature=0, max_tokens=40)
    streams = [engine.submit(Request(prompt, sampling)) for prompt in prompts]
    drain(engine)
    assert [ids_of(stream) for stream in streams] == [ids_of(make(hashed).generate(prompt, sampling)) for prompt in prompts]
    assert [count for _, count in engine.step.asked] == [39]


def test_exclusive_work_ends_what_a_device_does_ahead():
    engine = make(hashed, AheadStep)
    stream = engine.generate([1, 2], Sampling(temperature=0, max_tokens=9))
    expected = ids_of(make(hashed).generate([1, 2], Sampling(temperature=0, max_tokens=9)))
    said = [next(stream).id for _ in range(4)]
    with engine.exclusive():
        assert engine.scheduler._ahead is None
        waited = threading.Thread(target=lambda: said.extend(token.id for token in stream))
        waited.start()
        time.sleep(0.02)
        assert len(said) == 4
    waited.join()
    assert said == expected


def test_a_short_prompt_does_not_wait_for_a_long_one():
    engine = make(chunk=64)
    long, short = engine.submit(Request(LONG, GREEDY)), engine.submit(Request([1, 5, 9], GREEDY))
    engine.advance()
    assert engine.step.runs == [64] and short.stats.generated_tokens == 1 and not long.stats.generated_tokens
    drain(engine)
    assert ids_of(long) == [21, 22, 23, 24, 25, 26]


def test_prompts_of_one_length_are_read_one_after_the_other():
    """The first one answers as soon as it can, and the last no later than if all were read at once."""
    engine = make(chunk=100)
    streams = [engine.submit(Request([*LONG, last], GREEDY)) for last in (3, 4)]
    engine.advance()
    assert engine.step.ran == [(0, 100)]
    drain(engine)
    assert [ids_of(stream)[0] for stream in streams] == [4, 5]


@pytest.mark.parametrize("end", [lambda engine, stream: stream.close(), lambda engine, stream: engine.close()])
@timely
def test_another_thread_ends_a_stream_while_its_prompt_is_read(end):
    """At once: the run under way is interrupted, and the thread that reads does not take the next turn first."""
    engine, under_way = make(chunk=64), threading.Event()
    aborted, found = threading.Event(), []

    def slow():
        under_way.set()
        aborted.wait(10)

    def read():
        with contextlib.suppress(OptionError):
            found.extend(ids_of(stream))

    abort = engine.step.abort
    engine.step.abort = lambda: (abort(), aborted.set())
    engine.scheduler._watcher._abort = lambda: engine.step.abort
    engine.step.fail, stream = slow, engine.generate(LONG, GREEDY)
    thread = threading.Thread(target=read)
    thread.start()
    under_way.wait()
    began = time.perf_counter()
    end(engine, stream)
    seconds = time.perf_counter() - began
    thread.join()
    assert aborted.is_set() and len(engine.step.runs) == 1 and found == []
    in_time(seconds, 0.25)


def test_prompts_of_callers_who_may_leave_are_read_in_short_runs():
    """About 0.4 s each, and 64 tokens while nobody knows how fast that is."""
    engine = make(chunk=200)
    streams = [engine.submit(Request([*LONG, last], GREEDY, responsive=True)) for last in (3, 4)]
    engine.advance()
    assert engine.step.runs == [64]
    drain(engine)
    assert [ids_of(stream)[0] for stream in streams] == [4, 5]
