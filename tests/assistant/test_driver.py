import threading
import time
from collections import deque

import numpy as np
import pytest

from lacewing.assistant.driver import Driver
from lacewing.engine.engine import Engine, Request
from lacewing.errors import ContextOverflowError, NumericError, OptionError
from lacewing.options import Sampling
from tests.engine.mock import VOCAB, MockStep, counting
from tests.timing import in_time, timely

GREEDY = Sampling(temperature=0, max_tokens=12)


class Caller:
    def __init__(self):
        self.deliveries, self.threads = [], set()
        self.reason = self.error = None
        self.ended = threading.Event()

    def on_tokens(self, tokens):
        assert not self.ended.is_set()
        self.threads.add(threading.current_thread().name)
        self.deliveries.append([token.id for token in tokens])

    def on_end(self, reason, error):
        assert not self.ended.is_set()
        self.reason, self.error = reason, error
        self.ended.set()

    @property
    def ids(self):
        return [token for each in self.deliveries for token in each]


@pytest.fixture
def open_driver():
    opened = []

    def open_one(step):
        opened.append(Driver(Engine(step, VOCAB, step.limits.context)))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def submit(driver, ids, sampling=GREEDY, **options):
    caller = Caller()
    return caller, driver.submit(Request(ids, sampling, **options), caller.on_tokens, caller.on_end)


def test_requests_share_runs_of_one_thread(open_driver):
    step = MockStep(counting, chunk=16, context=512, rows=4)
    driver = open_driver(step)
    with driver.exclusive():  # so that all four are there before the first run
        callers = [submit(driver, [start])[0] for start in (0, 4, 9, 16)]
    for caller, start in zip(callers, (0, 4, 9, 16), strict=True):
        assert caller.ended.wait(10) and caller.reason == "length" and caller.error is None
        assert caller.ids == [(start + 1 + place) % VOCAB for place in range(12)]
        assert all(len(each) == 1 for each in caller.deliveries)
        assert caller.threads == {"lacewing-driver"}
    assert len(step.runs) <= 14 and driver.count == 0


def test_more_requests_than_rows_all_end(open_driver):
    driver = open_driver(MockStep(counting, context=64, rows=2))
    callers = [submit(driver, [start])[0] for start in range(10)]
    assert all(caller.ended.wait(10) for caller in callers) and all(len(caller.ids) == 12 for caller in callers)


@timely
def test_submitting_and_cancelling_never_wait_for_a_run(open_driver):
    """Nor does a request that waits for a row keep anything but itself."""
    under_way, go_on = threading.Event(), threading.Event()
    step = MockStep(counting, chunk=8, context=64)
    step.fail = lambda: (under_way.set(), go_on.wait(10))
    driver = open_driver(step)
    first, one = submit(driver, [1])
    assert under_way.wait(10) and one.begun
    began = time.perf_counter()
    second, two = submit(driver, [5])
    assert not two.begun
    two.cancel()
    one.end("stop")
    seconds = time.perf_counter() - began
    go_on.set()
    assert first.ended.wait(10) and second.ended.wait(10)
    assert (first.reason, second.reason) == ("stop", "cancelled") and second.ids == []
    in_time(seconds, 0.2)


def test_a_prompt_that_is_read_is_interrupted(open_driver):
    aborted = []
    under_way = threading.Event()
    step = MockStep(counting, chunk=4, context=64)
    step.fail = lambda: (under_way.set(), time.sleep(0.05))
    driver = open_driver(step)
    step.abort = lambda: aborted.append(1)
    caller, handle = submit(driver, list(range(20)))
    assert under_way.wait(10)
    handle.cancel()
    assert caller.ended.wait(1) and caller.reason == "cancelled" and aborted and len(step.runs) < 5


def test_errors(open_driver):
    """Of the prompt at once, of the run to the one whose logits are no numbers, and of a callback to its own request."""
    step = MockStep(lambda ids: np.full(VOCAB, np.nan, np.float32) if ids[0] == 7 else counting(ids), context=16, rows=3)
    driver = open_driver(step)
    with pytest.raises(ContextOverflowError):
        submit(driver, [0] * 17)
    with driver.exclusive():
        broken, fine, rude = submit(driver, [7])[0], submit(driver, [1])[0], Caller()
        driver.submit(Request([2], GREEDY), lambda tokens: 1 // 0, rude.on_end)
    assert broken.ended.wait(10) and isinstance(broken.error, NumericError) and broken.reason is None
    assert rude.ended.wait(10) and isinstance(rude.error, ZeroDivisionError)
    assert fine.ended.wait(10) and len(fine.ids) == 12


def test_an_error_of_no_request_in_particular_ends_all(open_driver, monkeypatch):
    driver = open_driver(MockStep(counting, context=64, rows=2))
    monkeypatch.setattr(driver.engine, "advance", lambda: 1 // 0)
    callers = [submit(driver, [start])[0] for start in (1, 2)]
    assert all(caller.ended.wait(10) and isinstance(caller.error, ZeroDivisionError) for caller in callers)
    monkeypatch.undo()
    again, _ = submit(driver, [3])
    assert again.ended.wait(10) and len(again.ids) == 12


def test_close_tells_those_who_wait(open_driver):
    step = MockStep(counting, context=4096, rows=1)
    driver = open_driver(step)
    callers = [submit(driver, [start], Sampling(temperature=0))[0] for start in range(3)]
    driver.close()
    assert all(caller.ended.is_set() and caller.reason == "cancelled" for caller in callers)
    with pytest.raises(OptionError, match="closed"):
        submit(driver, [1])
    assert not any(thread.name == "lacewing-driver" for thread in threading.enumerate())


def test_close_finds_a_request_that_the_thread_is_just_taking_over(open_driver):
    taken = threading.Event()

    class Slow(deque):
        """Whoever takes one is interrupted with it in hand."""

        def popleft(self):
            found = super().popleft()
            taken.set()
            time.sleep(0.2)
            return found

    step = MockStep(counting, context=4096, rows=2)
    step.fail = lambda: time.sleep(0.001)
    driver = open_driver(step)
    first, handle = submit(driver, [1], Sampling(temperature=0))
    while not handle.begun:
        time.sleep(0.001)
    driver._fresh = Slow()
    second, _ = submit(driver, [2], Sampling(temperature=0))
    assert taken.wait(10)
    driver.close()
    assert first.reason == second.reason == "cancelled"


def test_the_thread_ends_without_requests_and_comes_back(open_driver, monkeypatch):
    monkeypatch.setattr("lacewing.assistant.driver._IDLE", 0.02)
    driver = open_driver(MockStep(counting, context=64))
    for _ in range(3):
        caller, _ = submit(driver, [1])
        assert caller.ended.wait(10)
        deadline = time.monotonic() + 10
        while any(thread.name == "lacewing-driver" for thread in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_others_use_the_engine_at_the_same_time(open_driver):
    driver = open_driver(MockStep(counting, context=64, rows=2))
    caller, _ = submit(driver, [1])
    assert [token.id for token in driver.engine.generate([9], GREEDY)] == list(range(10, 22))
    assert caller.ended.wait(10) and caller.ids == list(range(2, 14))


def test_who_ends_itself_takes_no_part_in_the_next_run_and_every_run_is_told_once():
    step, told = MockStep(counting, context=64, rows=2), []
    driver = Driver(Engine(step, VOCAB, 64), lambda: told.append(len(step.runs)))
    caller = Caller()

    def on_tokens(tokens):
        caller.on_tokens(tokens)
        if len(caller.ids) == 3:
            handle.end("stop")

    with driver.exclusive():
        handle = driver.submit(Request([1], GREEDY), on_tokens, caller.on_end)
    assert caller.ended.wait(10) and caller.reason == "stop" and caller.ids == [2, 3, 4]
    driver.close()
    assert len(step.runs) == 3 and told == [1, 2, 3]
