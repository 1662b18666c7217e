"""What runs of an engine bring comes to everybody who waits for it."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace

import pytest

from lacewing.server.worker import Worker


class Sink:
    def __init__(self, told, name):
        self.told, self.name = told, name

    def push(self, deltas, end):
        if self.name is None:
            raise ZeroDivisionError
        self.told.append(self.name)


@pytest.mark.parametrize("counter", [True, False])
def test_a_fault_with_one_keeps_nothing_from_the_others(monkeypatch, counter):
    """Neither from those of the same run nor from those of the next; without their ends they would wait for ever."""
    if not counter:
        monkeypatch.delattr(os, "eventfd", raising=False)
    step = SimpleNamespace(limits=SimpleNamespace(rows=4))
    engine = SimpleNamespace(step=step, scheduler=SimpleNamespace(counters=SimpleNamespace(faults=0)))

    async def run():
        told, faults, loop = [], [], asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))
        worker = Worker(SimpleNamespace(engine=engine), loop)
        for names in (("first", None, "second"), (None, "third")):
            worker.moved = [(Sink(told, name), (), None) for name in names]
            worker._deliver()
        async with asyncio.timeout(10):
            while len(told) < 3 or len(faults) < 2:
                await asyncio.sleep(0.01)
        assert told == ["first", "second", "third"]
        assert [type(fault) for fault in faults] == [ZeroDivisionError] * 2
        worker.close()

    asyncio.run(run())
