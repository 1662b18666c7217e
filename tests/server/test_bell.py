"""A thread wakes an event loop."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from lacewing.server.bell import Bell


@pytest.fixture(params=["as the system has it", "without a counter"])
def any_system(request, monkeypatch):
    if request.param == "without a counter":
        monkeypatch.delattr(os, "eventfd", raising=False)


def test_each_ring_is_answered_in_the_loops_thread(any_system):
    async def run() -> None:
        brought: list[int] = []
        told: list[int] = []
        threads = set()
        done = asyncio.Event()

        def answer() -> None:
            threads.add(threading.get_ident())
            while brought:
                told.append(brought.pop(0))
            if len(told) == 100:
                done.set()

        bell = Bell(asyncio.get_running_loop(), answer)

        def work() -> None:
            for number in range(100):
                brought.append(number)
                bell.ring()

        thread = threading.Thread(target=work)
        thread.start()
        await asyncio.wait_for(done.wait(), 5)
        thread.join()
        assert told == list(range(100)) and threads == {threading.get_ident()}
        bell.close()

    asyncio.run(run())


def test_what_came_before_the_end_is_answered(any_system):
    async def run() -> None:
        told: list[str] = []
        bell = Bell(asyncio.get_running_loop(), lambda: told.append("answer"))
        thread = threading.Thread(target=lambda: (bell.ring(), bell.close()))
        thread.start()
        thread.join()
        await asyncio.sleep(0.05)
        assert told

    before = _open_files()
    asyncio.run(run())
    assert _open_files() == before


def test_a_loop_that_is_closed(any_system):
    """The last requests of a model may end after the server."""

    async def run() -> Bell:
        return Bell(asyncio.get_running_loop(), lambda: None)

    before = _open_files()
    bell = asyncio.run(run())
    bell.close()
    with pytest.raises(RuntimeError, match="closed"):
        bell.ring()
    assert _open_files() == before


def _open_files() -> int:
    folder = "/proc/self/fd"
    return len(os.listdir(folder)) if os.path.isdir(folder) else 0
