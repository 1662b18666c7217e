"""Threads tied to CPUs: which CPUs they get, that the caller is let go, and that all are while others need the CPUs."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lacewing.backends.cpu import CpuBackend, affinity, pool
from lacewing.backends.cpu.affinity import Patience, default_threads, seats
from lacewing.backends.processors import Processor
from tests.checkpoints import prompt_of, tiny
from tests.models.running import open_step, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties threads to CPUs")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny("gemma2", "gguf", tmp_path_factory.mktemp("affinity"), "Q8_0")


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> Iterator[frozenset[int]]:
    """A machine of 8 CPUs on 4 cores."""
    cpus = frozenset(range(8))
    affinity._order.cache_clear()
    monkeypatch.setattr(affinity, "cores", lambda cpus: [Processor(cpu, cpu % 4) for cpu in sorted(cpus)])
    yield cpus
    affinity._order.cache_clear()


def test_a_core_for_each_thread_as_far_as_there_are_any(eight: frozenset[int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert seats(eight, 4) == [0, 1, 2, 3] and seats(eight, 6) == [0, 1, 2, 3, 4, 5]
    assert seats(frozenset({1, 2, 5}), 3) == [1, 2, 5] and seats(frozenset({1, 2, 5}), 4) is None
    assert seats(eight, 2, taken={0, 1}) == [2, 3] and seats(eight, 6, taken={0, 1, 2}) is None
    monkeypatch.setenv(affinity.SWITCH, "0")
    assert seats(eight, 4) is None
    monkeypatch.delenv(affinity.SWITCH)
    monkeypatch.setattr(affinity, "CAN_PIN", False)
    assert seats(eight, 4) is None and default_threads() >= 1


def test_the_default_is_within_the_mask() -> None:
    assert 1 <= default_threads() <= len(os.sched_getaffinity(0))
    assert CpuBackend(None).threads == default_threads()


def test_the_caller_is_tied_during_a_step_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each thread is alone on its CPU."""
    mine = os.sched_getaffinity(0)
    if len(mine) < 2:
        pytest.skip("one CPU")
    _, step = open_step(path, None, CpuBackend(2))
    team = step._pool  # type: ignore[attr-defined]
    seen: list[list[set[int]]] = []
    whole = team._wake_sleepers

    def look() -> None:
        seen.append([os.sched_getaffinity(thread) for thread in (0, *(worker.thread.native_id for worker in team._team))])
        whole()

    with monkeypatch.context() as patch:
        patch.setattr(team, "_wake_sleepers", look)
        patch.setattr(team._patience, "ties", lambda: True)
        run(step, prompt_of("gemma2"))
        assert all(len(mask) == 1 for mask in seen[0]) and len(set.union(*seen[0])) == 2
        assert os.sched_getaffinity(0) == mine
        patch.setattr(team._patience, "ties", lambda: False)
        run(step, [1, 2])
        assert seen[-1] == [mine, mine] and team.cpus == []
    step.close()


def test_a_mask_that_changes_is_followed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer CPUs than threads: the system decides. What somebody sets during a step stays."""
    mine = os.sched_getaffinity(0)
    if len(mine) < 2:
        pytest.skip("one CPU")
    _, step = open_step(path, None, CpuBackend(2))
    team, one = step._pool, {min(mine)}  # type: ignore[attr-defined]
    monkeypatch.setattr(team._patience, "ties", lambda: True)
    expected = run(step, [1, 2, 3])
    try:
        os.sched_setaffinity(0, one)
        assert np.array_equal(run(step, [1, 2, 3]), expected) and os.sched_getaffinity(0) == one
        assert all(worker.cpu is None for worker in team._team)
        os.sched_setaffinity(0, mine)
        whole, other = team._wake_sleepers, mine - {affinity.seats(frozenset(mine), 1)[0]}
        with monkeypatch.context() as patch:
            patch.setattr(team, "_wake_sleepers", lambda: (os.sched_setaffinity(0, other), whole()))
            run(step, [1, 2, 3])
        assert os.sched_getaffinity(0) == other
    finally:
        os.sched_setaffinity(0, mine)
    step.close()


def test_threads_that_had_to_wait_are_let_go_for_longer_and_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    now, waited = [100.0], {7: 0, 8: 0}
    monkeypatch.setattr(affinity.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(affinity, "waited_of", lambda thread: waited.get(thread))
    patience = Patience()

    def after(seconds: float, nanoseconds: float = 0) -> bool:
        now[0] += seconds
        waited[8] += int(nanoseconds)
        patience.look([7, 8, 9])  # 9 is gone
        return patience.ties()

    assert after(0) and after(0.2) and after(0.2, 5e6)  # a little is nothing
    for loose in (*affinity.LOOSE_SECONDS, affinity.LOOSE_SECONDS[-1]):
        assert not after(0.2, 90e6)
        now[0] += loose - 0.01
        assert not patience.ties()
        assert after(0.02, 1e9) and after(0.05, 1e9)  # tied again: what was waited before does not count; then not looked at yet
        waited[8] -= int(1e9)
    assert after(0.2) and not after(0.2, 90e6)  # fine in between: from the beginning
    now[0] += affinity.LOOSE_SECONDS[0]
    assert patience.ties()


def test_a_thread_that_waits_for_its_cpu_is_seen() -> None:
    """Two busy threads on one CPU."""
    cpu, stop, found = min(os.sched_getaffinity(0)), threading.Event(), []
    before = affinity.waited_of(threading.get_native_id())
    if before is None:
        pytest.skip("this system does not tell")

    def work() -> None:
        os.sched_setaffinity(0, {cpu})
        data = bytes(2**22)
        while not stop.is_set():
            hash(data[:])  # copies without holding anything up for long
        found.append(affinity.waited_of(threading.get_native_id()))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    stop.wait(0.3)
    stop.set()
    for thread in threads:
        thread.join()
    assert max(found) > 1e6 and affinity.waited_of(2**22 + 5) is None


def test_models_share_workers_and_give_them_back(path: Path) -> None:
    """As many as the largest needs, more only where there are CPUs for both."""
    before = len(pool._workers._every)
    steps = [open_step(path, None, CpuBackend(threads))[1] for threads in (3, 5, 2)]
    cpus = len(os.sched_getaffinity(0))
    assert len(pool._workers._every) == max(before, 4, min(2 + 4 + 1, cpus - 3))
    expected = run(steps[0], [1, 2, 3])
    for step in steps[1:]:
        assert np.array_equal(run(step, [1, 2, 3]), expected)
    steps[1].close()
    assert np.array_equal(run(steps[2], [1, 2, 3]), expected)
    for step in steps:
        step.close()
    assert len(pool._workers._every) == before


def test_fewer_threads_than_compiled_for(path: Path) -> None:
    _, step = open_step(path, None, CpuBackend(4))
    expected = run(step, prompt_of("gemma2"))
    for threads in (1, 2, 3, 4, 9, 0):
        step.limit_threads(threads)  # type: ignore[attr-defined]
        assert np.array_equal(run(step, prompt_of("gemma2")), expected)
    step.close()
