"""What fails in the middle: devices that are lost, logits that are no numbers, memory that ends, states a thousand pages long."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from lacewing.backends.batch import Batch
from lacewing.engine.engine import Engine, Request
from lacewing.engine.saved import VERSION_2, read_state, state_size, write_state
from lacewing.engine.watcher import Watcher
from lacewing.errors import BackendError, NumericError, OutOfMemoryError
from lacewing.options import Sampling
from lacewing.program.states import PAGE
from tests.engine.mock import FULL, KINDS, UNIT, VOCAB, WINDOW, AheadStep, MockStep, counting

GREEDY = Sampling(temperature=0, max_tokens=6)


def used(engine: Engine) -> list[int]:
    return [engine.scheduler.pages.used(group) for group in range(len(engine.step.groups))]


@pytest.mark.parametrize("kind", ["full", "only windows"])
def test_a_context_of_more_pages_than_python_nests_calls_can_be_forgotten(kind: str) -> None:
    context = 1100 * PAGE
    engine = Engine(MockStep(counting, 4096, context, 1, KINDS[kind]), VOCAB, context)
    assert engine.prefill([place % VOCAB for place in range(context - 1)])
    engine.forget()
    assert not any(used(engine))


def test_a_device_that_is_lost_while_a_page_is_copied_fails_the_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(MockStep(counting, 512, 1000, 1), VOCAB, 1000)
    engine.prefill([1] * 200)

    def lost(*_: object) -> None:
        raise BackendError("the device is lost")

    monkeypatch.setattr(engine.step, "_copy", lost)
    stream = engine.generate([1] * 190 + [2], GREEDY)
    with pytest.raises(BackendError, match="lost"):
        next(stream)
    assert list(stream) == [] and not engine.scheduler.running and not engine.scheduler.waiting
    engine.forget()
    assert used(engine) == [0]


def test_a_check_that_fails_leaves_nothing_to_take_up() -> None:
    failing = False

    def check() -> None:
        if failing:
            raise BackendError("the file was changed")

    engine = Engine(MockStep(counting, 512, 1000, 1), VOCAB, 1000, check)
    engine.extend([1] * 300)
    failing = True
    with pytest.raises(BackendError):
        engine.extend([1])
    assert engine.held([1] * 300) == 0 and engine.cached == [] and used(engine) == [0]


def test_a_broken_prefix_is_run_again() -> None:
    """A prompt that was cancelled never showed its logits, so nobody knew that what was kept of it is broken."""
    broken = True

    def script(ids: list[int]) -> np.ndarray:
        return np.full(VOCAB, np.nan, np.float32) if broken else counting(ids)

    engine = Engine(MockStep(script, 128, 1000, 1), VOCAB, 1000)
    prompt, runs = [1] * 400, engine.step.runs  # type: ignore[attr-defined]
    assert not engine.prefill(prompt, lambda: len(runs) == 2)
    held = engine.held(prompt)
    assert held > 0
    with pytest.raises(NumericError):
        list(engine.generate(prompt, GREEDY))
    broken = False
    stream = engine.generate(prompt, GREEDY)
    assert [token.id for token in stream] == [2, 3, 4, 5, 6, 7] and stream.stats.reused_tokens == 0


class Careless(AheadStep):
    """After broken logits the units of the rows hold something else, as on a device that was a token further ahead."""

    def greedy(self, batch: Batch, count: int):  # type: ignore[no-untyped-def]
        try:
            yield from super().greedy(batch, count)
        except NumericError:
            assert batch.units_in is not None and batch.units_out is not None
            for row in batch.rows.tolist():
                for units in (batch.units_in, batch.units_out):
                    self.units[1][int(units[0, row])] = []
            raise


@pytest.mark.parametrize("chunk", [4, 5, 512])
@pytest.mark.parametrize("at", [4, 5, 6, 9, 12])
def test_broken_logits_of_one_leave_the_recurrent_state_of_others_alone(at: int, chunk: int) -> None:
    def script(ids: list[int]) -> np.ndarray:
        row = counting(ids)
        row[5] = np.nan if ids[0] == 9 and len(ids) == at else row[5]
        return row

    engine = Engine(Careless(script, chunk, 400, 2, (FULL, UNIT)), VOCAB, 400)
    sampling = Sampling(temperature=0, max_tokens=12)
    good, bad = (engine.submit(Request([first, 2, 3], sampling)) for first in (1, 9))
    assert [token.id for token in good] == list(range(4, 16))
    with pytest.raises(NumericError, match=f"position {at - 1}"):
        list(bad)
    engine.forget()
    assert used(engine) == [0, 0]


@pytest.mark.parametrize("states", [(FULL,), (FULL, WINDOW), (FULL, WINDOW, UNIT)], ids=len)
def test_a_saved_state_that_cannot_be_put_back_holds_nothing(states: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    step = MockStep(counting, 512, 1000, 1, states)
    engine, ids = Engine(step, VOCAB, 1000), [1] * 300
    data = VERSION_2 + bytes(state_size(step.groups, len(ids), VERSION_2) - len(VERSION_2))
    with pytest.raises(NotImplementedError):  # the mock's states have no bytes
        write_state(engine, ids, data)
    assert not any(used(engine))
    engine.prefill(ids)
    with pytest.raises(NotImplementedError):
        read_state(engine)
    assert engine.held(ids) == 300 and not engine.scheduler.running
    engine.forget()
    step.memory = [0] * len(states)
    for group in range(len(states)):
        step.grow(group, 0)
    engine.scheduler.pages.__init__(step)  # type: ignore[misc]
    with pytest.raises(OutOfMemoryError):
        write_state(engine, ids, data)
    assert not any(used(engine))


def test_an_abort_does_not_come_after_the_end_of_its_run() -> None:
    """The watching thread may have its answer when the run ends; then it must not end somebody else's."""
    asked, go_on, aborted = threading.Event(), threading.Event(), []

    class Aborts:
        def abort(self) -> None:
            aborted.append(True)

    def cancelled() -> bool:
        asked.set()
        return go_on.wait(10)

    step = Aborts()
    watcher = Watcher(step.abort)
    watcher.begin([cancelled])
    assert asked.wait(10)
    watcher.end()
    second = threading.Event()
    watcher.begin([lambda: second.set() is not None])
    go_on.set()
    assert second.wait(10) and not aborted
    watcher.end()


def test_pages_of_somebody_who_does_not_fetch_tokens_are_not_waited_for() -> None:
    """The first task holds its pages and is paused; the second needs them, and was admitted later."""
    engine = Engine(MockStep(counting, 512, 2000, 2), VOCAB, 2000)
    pages = engine.scheduler.pages
    pages.budget = 4 * pages.groups[0].nbytes
    paused = engine.generate([1] * 300, Sampling(temperature=0, max_tokens=30))
    assert next(paused).id == 2
    other = engine.submit(Request([9] * 300, GREEDY))
    for _ in range(100):
        engine.advance()
    assert engine.scheduler.running == [] and [token.id for token in other] == [10, 11, 12, 13, 14, 15]
    assert [token.id for token in paused] == [(3 + count) % VOCAB for count in range(29)]
