"""The models of a server: each is brought into memory when a request asks for it, and leaves it for another one or when idle.

Everything here runs in the event loop's thread; what takes long is done in others (`loading`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, NamedTuple

from lacewing.api import Model
from lacewing.errors import Cancelled, LacewingError
from lacewing.options import Progress
from lacewing.server.errors import DrainingError, ModelLoadError
from lacewing.server.models import loading
from lacewing.server.models.names import Catalogue, Source
from lacewing.server.models.served import Entry, Served, Slot
from lacewing.server.options import ServerOptions

MakeWorker = Callable[[Model, asyncio.AbstractEventLoop], Any]


class Health(NamedTuple):
    """`status` "ok" if requests can be answered, else "loading", "draining" or "failed"; `message` says more, and what to do."""

    status: str
    message: str = ""


class Registry:
    """Gives requests their models. `worker` makes what runs one; `close` ends all."""

    def __init__(self, catalogue: Catalogue, options: ServerOptions, worker: MakeWorker):
        self.catalogue, self.options, self._make_worker = catalogue, options, worker
        self.draining = self._closed = False
        self._slots: dict[str, Slot] = {}
        self._closing: asyncio.Task[None] | None = None
        self._moving = asyncio.Lock()  # one model comes or goes at a time

    # what requests ask

    @contextlib.asynccontextmanager
    async def use(self, name: str | None, progress: Progress | None = None) -> AsyncIterator[Served]:
        """The model of that name (None: the first), loaded if it is not here. It stays while it is used.

        `progress` is told of loading, in the event loop's thread. Raises UnknownModelError, ModelLoadError, DrainingError.
        """
        slot = self._slot(self.catalogue.find(name))
        served = await self._ready(slot, progress)
        slot.users += 1
        try:
            yield served
        finally:
            slot.users -= 1
            slot.left_at = time.monotonic()

    def names(self) -> list[Entry]:
        """All models that can be asked for, and how they are."""
        found = []
        for source in self.catalogue.sources():
            slot = self._slots.get(source.name) or Slot(source)
            found.append(Entry(source.name, source.created, slot.status, slot.problem))
        return found

    @property
    def served(self) -> list[Served]:
        """Those that are in memory."""
        return [slot.served for slot in self._slots.values() if slot.served is not None]

    @property
    def loading(self) -> dict[str, tuple[str, int, int]]:
        """Of each model that is being loaded, by name: what is being done, done so far, in all."""
        return {name: slot.stage for name, slot in self._slots.items() if slot.task is not None}

    @property
    def health(self) -> Health:
        """Whether requests can be answered now."""
        if self.draining:
            return Health("draining", "the server is shutting down")
        slots = list(self._slots.values())
        if any(slot.ready for slot in slots):
            return Health("ok")
        for slot in slots:
            if slot.task is not None:
                return Health("loading", f"{slot.source.name}: {_shown(*slot.stage)}")
        failed = next((slot for slot in slots if slot.problem), None)
        if failed is not None:
            return Health("failed", failed.problem)
        return Health("ok", "no model is in memory; the next request loads one")

    # coming and going

    def _slot(self, source: Source) -> Slot:
        slot = self._slots.setdefault(source.name, Slot(source))
        return slot

    async def _ready(self, slot: Slot, progress: Progress | None) -> Served:
        if progress is not None:
            slot.listeners.append(progress)
        try:
            while True:
                if self.draining:
                    raise DrainingError("the server is shutting down; ask another one, or later", retry_after=5)
                if slot.ready and slot.served is not None:
                    return slot.served
                if slot.task is None:
                    slot.task = asyncio.create_task(self._bring(slot))
                await asyncio.shield(slot.task)  # it goes on for others, whoever leaves
        finally:
            if progress is not None:
                slot.listeners.remove(progress)

    async def _bring(self, slot: Slot) -> None:
        """Into memory. Raises ModelLoadError."""
        try:
            async with self._moving:
                await self._load(slot)
            slot.problem, slot.tries = "", 0
        except Exception as error:
            slot.problem = f"{slot.source.name} could not be loaded: {str(error) or type(error).__name__}"
            slot.tries += 1
            raise ModelLoadError(slot.problem, retry_after=10) from error
        finally:
            slot.task, slot.stage = None, ("", 0, 0)

    async def _load(self, slot: Slot) -> None:
        loop = asyncio.get_running_loop()
        report = loading.relay(loop, slot.report)
        info = await loading.in_thread(lambda: loading.open_source(slot.source, self.options.load, report, self._ending))
        await loading.in_thread(lambda: loading.size_cache(info))
        model = await loading.in_thread(lambda: loading.load(info, report, self._ending))
        slot.served = Served(slot.source.name, model, self._make_worker(model, loop), int(time.time()))

    def _ending(self) -> bool:
        return self._closed

    async def preload(self, progress: Progress | None = None) -> None:
        """Load the first model, if there is one, before anybody asks. Raises ModelLoadError."""
        if self.catalogue.default is not None:
            await self._ready(self._slot(self.catalogue.find(None)), progress)

    async def close(self) -> None:
        """End all that runs, and free the memory. Whoever calls waits until it is done."""
        self.draining = self._closed = True
        self._closing = self._closing or asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        tasks = [slot.task for slot in self._slots.values() if slot.task is not None]
        for task in tasks:
            with contextlib.suppress(Cancelled, LacewingError):
                await task
        for slot in self._slots.values():
            if slot.served is not None:
                served, slot.served = slot.served, None
                await loading.in_thread(partial(loading.unload, served))


def _shown(what: str, done: int, total: int) -> str:
    """A stage of loading for people."""
    return f"{what or 'waiting'}, {done * 100 // total} %" if total else what or "waiting"
