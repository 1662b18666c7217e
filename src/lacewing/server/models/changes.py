"""What is under way with the models of a server: it takes turns, can be given up, and tells those that wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from lacewing.errors import Cancelled
from lacewing.server.errors import DrainingError
from lacewing.server.models import loading
from lacewing.server.models.served import Change, Slot

T = TypeVar("T")


class Changes:
    """Of the event loop's thread only. `turn`: of what looks at all models, such as loading, which needs to know who makes room."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.ending = False
        self.moved: Callable[[Slot], None] = lambda slot: None  # is told that the state of one is another
        self._waiting: list[asyncio.Future[None]] = []  # until something is another way than it was

    def left(self, slot: Slot) -> None:
        """A request has given a model back."""
        slot.left_at = time.monotonic()
        self.wake()

    def wake(self) -> None:
        """Those that wait for a `change` look again."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    def change(self) -> asyncio.Future[None]:
        """Done when something is another way: a request has left, or something is given up, or over."""
        self._waiting.append(asyncio.get_running_loop().create_future())
        return self._waiting[-1]

    def over(self, change: Change) -> None:
        """Nothing of it is under way any more."""
        slot = change.slot
        slot.changes.remove(change)
        if not slot.changes:
            slot.stage = ("", 0, 0)
        self.moved(slot)
        self.wake()

    def end(self) -> None:
        """What is under way gives up."""
        self.ending = True
        self.wake()

    async def give_up(self, slot: Slot) -> None:
        """What is under way for one model now, unless it is to leave; returns when it is over."""
        changes = [each for each in slot.changes if not each.leaves]
        for each in changes:
            each.given_up = True
        self.wake()
        while any(each in slot.changes for each in changes):
            await self.change()

    def is_given_up(self, change: Change) -> bool:
        """Asked by what takes long, in any thread."""
        return self.ending or change.given_up

    async def run(self, change: Change, work: Callable[[], T], drop: Callable[[T], object] | None = None) -> T:
        """What `work` gives, done in a thread. Who is cancelled gives the change up and waits for the end of the work all the same,
        so that nobody else has the model meanwhile; `drop` is given what came of it then, in a thread as well."""
        working = asyncio.ensure_future(loading.in_thread(work))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            change.given_up = True
            await _over(working)
            if drop is not None and working.exception() is None:
                await _over(asyncio.ensure_future(loading.in_thread(partial(drop, working.result()))))
            raise

    @staticmethod
    def draining() -> DrainingError:
        """For what is to begin now."""
        return DrainingError("the server is shutting down; ask another one, or later", retry_after=5)

    @contextlib.asynccontextmanager
    async def turn_of(self, change: Change) -> AsyncIterator[None]:
        """The turn, for a model that nobody wants out of the memory any more. Raises Cancelled if it is given up meanwhile."""
        slot = change.slot
        while True:
            taking = asyncio.ensure_future(self.turn.acquire())
            while not taking.done() and not self.is_given_up(change):
                either: set[asyncio.Future[Any]] = {taking, self.change()}
                try:
                    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                except asyncio.CancelledError:  # nobody would give the turn back
                    if not taking.cancel() and not taking.cancelled():
                        self.turn.release()
                    raise
            if not taking.done():
                taking.cancel()
                raise self.draining() if self.ending else Cancelled(f"{slot.source.name} was given up")
            try:
                if not slot.leaving or self.is_given_up(change):
                    yield
                    return
            finally:
                self.turn.release()
            while slot.leaving and not self.is_given_up(change):
                await self.change()

    @contextlib.contextmanager
    def leaving(self, slot: Slot) -> Iterator[None]:
        """Nobody new gets a model before the end."""
        slot.leaving += 1
        try:
            yield
        finally:
            slot.leaving -= 1
            self.wake()

    @contextlib.asynccontextmanager
    async def emptied(self, slot: Slot, wanted: Change) -> AsyncIterator[None]:
        """Entered once all that have a model have finished; nobody new gets it before the end. `wanted`: for what this is.

        Raises DrainingError, and Cancelled if `wanted` is given up.
        """
        with self.leaving(slot):
            while slot.users and not self.is_given_up(wanted):
                wanted.slot.report(f"waiting for answers of {slot.source.name}", 0, 0)
                await self.change()
            if self.ending:
                raise self.draining()
            if wanted.given_up:
                raise Cancelled(f"the change of {wanted.slot.source.name} was given up")
            yield


async def _over(work: asyncio.Future[Any]) -> None:
    """Waits for its end, whoever is cancelled."""
    while not work.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({work})
