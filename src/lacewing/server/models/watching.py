"""Models in memory are looked after: such as are of no use any more are loaded again, such as nobody asks for leave."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping

from lacewing.errors import ModelFormatError
from lacewing.server.models import loading
from lacewing.server.models.moving import Mover
from lacewing.server.models.served import Served, Slot

_EVERY = 0.5  # seconds between two looks at all models
_log = logging.getLogger("lacewing.server")


class Watch:
    """Looks at all `slots` from `begin` to `close`. A look that takes long, as of a file on a disk that hangs, keeps nobody from
    looking at the other models. `bring` loads one; `idle`: seconds without a request after which one leaves, if nothing else is
    said of it. Of the event loop's thread only."""

    def __init__(self, slots: Mapping[str, Slot], mover: Mover, bring: Callable[[Slot], object], idle: float | None):
        self._slots, self._mover, self._bring, self._idle = slots, mover, bring, idle
        self._task: asyncio.Task[None] | None = None
        self._looks: dict[str, asyncio.Task[None]] = {}

    def begin(self) -> None:
        """A second time does nothing."""
        self._task = self._task or asyncio.create_task(self._watch())

    async def close(self) -> None:
        """No look is under way afterwards."""
        tasks = {*self._looks.values(), *([self._task] if self._task is not None else [])}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def leaves_in(self, slot: Slot) -> float | None:
        """Seconds in which a model leaves the memory, if nobody asks for it; None: it stays, or is not there."""
        idle = self._idle_of(slot)
        if idle is None or slot.served is None or math.isinf(idle):
            return None
        return max(0.0, idle if slot.users else slot.left_at + idle - time.monotonic())

    def _idle_of(self, slot: Slot) -> float | None:
        return self._idle if slot.keep is None else slot.keep

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            for name, slot in list(self._slots.items()):
                if name not in self._looks:
                    self._looks[name] = asyncio.create_task(self._look(name, slot))

    async def _look(self, name: str, slot: Slot) -> None:
        try:
            await self._look_at(slot)
        except Exception as error:  # of a driver or a disk: the next look is as usual
            _log.error("model could not be looked after", extra={"model": name}, exc_info=error)
        finally:
            del self._looks[name]

    async def _look_at(self, slot: Slot) -> None:
        if slot.served is not None and slot.task is None and not slot.lost:
            await self._check(slot, slot.served)
        if slot.lost and slot.task is None and not slot.leaving and time.monotonic() >= slot.retry_at:
            self._bring(slot)
        idle = self._idle_of(slot)
        if idle is not None and slot.served is not None and not slot.users and time.monotonic() - slot.left_at >= idle:
            await self._mover.unload_idle(slot, idle)

    @staticmethod
    async def _check(slot: Slot, served: Served) -> None:
        """Note why a model cannot be used any more: a fault that stays, such as a lost device, or a file that is another one."""
        problem = served.worker.fault
        if problem is None and served.model.weights_on_host:
            try:
                await loading.in_thread(served.model.weights.check_files)
            except ModelFormatError as error:
                problem = error
        if problem is not None and slot.served is served and not slot.leaving:
            slot.lost, slot.problem, slot.retry_at = True, lost(served.name, problem), 0.0
            _log.error("model lost", extra={"model": served.name, "problem": str(problem)})


def lost(name: str, problem: Exception) -> str:
    """Of a model that was in memory, for people."""
    again = "it is loaded again; if that does not help, look at its file and its device, and restart the server"
    return f"{name} cannot be used: {problem}; {again}"
