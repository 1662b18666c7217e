"""What the base of all steps promises, on the reference backend: tables, greedy tokens, aborting, closing."""

import threading

import numpy as np
import pytest

from lacewing.backends.batch import Batch, Wanted
from lacewing.errors import BackendError, Cancelled, OptionError
from tests import paged
from tests.checkpoints import prompt_of, tiny
from tests.models.running import greedy, open_step, run
from tests.tolerance import assert_equal_up_to_rounding


@pytest.fixture
def step(tmp_path):
    return open_step(tiny("llama", "gguf", tmp_path), context=300, rows=3, chunk=64)[1]


def test_greedy_of_several_rows(step):
    ids = prompt_of("llama")
    first, second = ids[:9], ids[3:14]
    expected = [greedy(step, first, 6), greedy(step, second, 6)]
    run(step, first, row=0)
    run(step, second, row=2)
    tokens = [expected[0][0], expected[1][0]]
    batch = Batch(np.array(tokens), np.array([0, 2]), np.array([9, 11]), np.array([0, 1]))
    found = np.array([each.copy() for each in step.greedy(batch, 5)])
    np.testing.assert_array_equal(found.T, [expected[0][1:], expected[1][1:]])


def test_choose(step):
    ids = prompt_of("llama")[:5]
    rows = run(step, ids)
    found = step.choose(paged.batch(step, ids, [0] * 5, range(5), [4, 1]), [Wanted(3), Wanted()])
    assert [found[0].ids[0], found[1].ids[0]] == [rows[4].argmax(), rows[1].argmax()]
    with pytest.raises(OptionError, match="1 outputs came with 2 wishes"):
        step.choose(Batch.of(ids, 0, [4]), [Wanted(), Wanted()])


def test_tables_are_checked(step):
    with pytest.raises(OptionError, match="no table of row 3"):
        step.put_table(0, 3, 0, [0])
    with pytest.raises(OptionError, match="beyond its context of 300"):
        step.put_table(0, 0, 2, [0, 1])
    with pytest.raises(OptionError, match="page 9 of group 0 does not exist; there are 9"):
        step.put_table(0, 0, 0, [9])


def test_shrinking_and_growing_keeps_what_stays(step):
    ids = (prompt_of("llama") * 20)[:140]
    for start in range(0, 140, 60):
        run(step, ids[start : start + 60], start)
    expected = run(step, ids[:1], 140)
    step.grow(0, 2)
    step.grow(0, 9)
    assert_equal_up_to_rounding(run(step, ids[:1], 140), expected)


def test_aborting_from_another_thread(step, monkeypatch):
    """Once a run is under way it ends; the positions before it stay as they were."""
    ids = prompt_of("llama")[:8]
    run(step, ids)
    expected = run(step, [5], 8)
    begun, going_on = threading.Event(), threading.Event()
    begin = step.state.begin

    def slow(batch):
        begin(batch)
        begun.set()
        assert going_on.wait(20)

    monkeypatch.setattr(step.state, "begin", slow)
    caught: list[BaseException] = []

    def work():
        try:
            run(step, ids, 8)
        except Cancelled as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(20)
    step.abort()
    going_on.set()
    thread.join()
    assert len(caught) == 1
    monkeypatch.undo()
    assert_equal_up_to_rounding(run(step, [5], 8), expected)


def test_an_abort_without_a_run_does_nothing(step):
    step.abort()
    assert np.isfinite(run(step, prompt_of("llama")[:3])).all()


def test_a_closed_step_refuses_everything(step):
    step.close()
    step.close()
    for call in (
        lambda: step.run(Batch.of([1], 0, [0])),
        lambda: step.grow(0, 3),
        lambda: step.put_table(0, 0, 0, [0]),
        lambda: step.copy(0, [(0, 1)]),
        lambda: step.read(0, [0]),
        lambda: step.routes(),
    ):
        with pytest.raises(OptionError, match="closed"):
            call()


def test_what_a_device_lacks_says_so(step):
    for call in (lambda: step.profile(1, 0), step.copy_rate, lambda: step.put_experts([], lambda: None)):
        with pytest.raises(BackendError, match="ReferenceStep cannot"):
            call()
