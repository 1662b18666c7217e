"""The models of a server: each is brought into memory when a request asks for it, and leaves it for another one or when idle.

Everything here runs in the event loop's thread; what takes long is done in others (`loading`).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple

from lacewing.errors import OptionError
from lacewing.options import Progress
from lacewing.server.errors import DrainingError, GivenUpError, UnknownModelError
from lacewing.server.models.changing import Changer
from lacewing.server.models.downloads import Downloads
from lacewing.server.models.facts import Facts, KnownFacts
from lacewing.server.models.moving import MakeWorker, Mover
from lacewing.server.models.names import Catalogue, Source
from lacewing.server.models.news import News
from lacewing.server.models.served import Counts, Entry, Served, Slot
from lacewing.server.models.watching import Watch, lost
from lacewing.server.options import ServerOptions

MOVED = "moved"  # an event: the state of a model is another one


class Health(NamedTuple):
    """`status` "ok" if requests can be answered, else "loading", "draining" or "failed"; `message` says more, and what to do."""

    status: str
    message: str = ""


class Registry:
    """Gives requests their models. `worker` makes what runs one; `close` ends all."""

    def __init__(self, catalogue: Catalogue, options: ServerOptions, worker: MakeWorker):
        self.catalogue, self.options = catalogue, options
        self.draining = False
        self._slots: dict[str, Slot] = {}
        self._mover = Mover(self._slots, options, worker)
        self._mover.moved = self._tell
        self._changer = Changer(self._mover, options.allow_paths)
        self.news = News()
        self.downloads = Downloads(catalogue, self.news)
        self._facts = KnownFacts()
        self._closing: asyncio.Task[None] | None = None
        self._watch = Watch(self._slots, self._mover, self._bring, options.idle_unload)

    # what requests ask

    @contextlib.asynccontextmanager
    async def use(self, name: str | None, progress: Progress | None = None) -> AsyncIterator[Served]:
        """The model of that name (None: the first), loaded if it is not here. It stays while it is used.

        `progress` is told of loading, in the event loop's thread. Raises UnknownModelError, ModelLoadError, DrainingError.
        """
        slot = self._slot(self.catalogue.find(name))
        served = await self._ready(slot, progress)
        slot.users += 1
        served.users += 1
        try:
            yield served
        finally:
            slot.users -= 1
            served.users -= 1
            self._mover.left(slot)

    def names(self) -> list[Entry]:
        """All models that can be asked for, and how they are."""
        return [self._entry(source) for source in self.catalogue.sources()]

    def entry(self, name: str | None) -> Entry:
        """One of them; None: the first. Raises UnknownModelError."""
        return self._entry(self.catalogue.find(name))

    def _entry(self, source: Source) -> Entry:
        slot = self._slots.get(source.name) or Slot(source)
        return slot.entry._replace(leaves_in=self._watch.leaves_in(slot))

    def facts(self, entry: Entry) -> Facts | None:
        """What the headers of a model tell, for a thread of its own; None: they cannot be read."""
        if entry.served is not None and entry.served.model.on_device:
            return self._facts.of(entry.served.model)
        try:
            source = self.catalogue.find(entry.name)
        except UnknownModelError:  # its file has gone meanwhile
            return None
        return self._facts.get(source, entry.setup.options(self.options.load))

    @property
    def default(self) -> str | None:
        """The name of the model that is taken where none is named."""
        return self.catalogue.default or next((source.name for source in self.catalogue.sources()), None)

    @property
    def served(self) -> list[Served]:
        """Those that are in memory."""
        return [slot.served for slot in self._slots.values() if slot.served is not None]

    @property
    def loading(self) -> dict[str, tuple[str, int, int]]:
        """Of each model that is being loaded, by name: what is being done, done so far, in all."""
        return {name: slot.stage for name, slot in self._slots.items() if slot.task is not None}

    def on_loaded(self, told: Callable[[Served], None]) -> None:
        """Call it with each model that has been loaded, before its first request."""
        self._mover.loaded = told

    @property
    def counts(self) -> Counts:
        """What came and went so far."""
        return self._mover.counts

    @property
    def health(self) -> Health:
        """Whether requests can be answered now."""
        if self.draining:
            return Health("draining", "the server is shutting down")
        slots = list(self._slots.values())
        for slot in slots:
            if slot.lost:
                return Health("failed", slot.problem)
            if slot.served is not None and slot.served.worker.fault is not None:
                return Health("failed", lost(slot.served.name, slot.served.worker.fault))
        if any(slot.ready or slot.aside for slot in slots):
            return Health("ok")
        for slot in slots:
            if slot.task is not None:
                return Health("loading", f"{slot.source.name}: {_shown(*slot.stage)}")
        failed = next((slot for slot in slots if slot.problem), None)
        if failed is not None:
            return Health("failed", failed.problem)
        return Health("ok", "no model is in memory; the next request loads one")

    # what people change

    async def load(self, name: str | None, given: Mapping[str, Any], force: bool = False) -> list[str]:
        """Bring a model into memory with these fields of its `Setup`, or change it; what has changed, in words of the API.

        Raises LacewingError; then it has the setup of before.
        """
        slot = self._slot(self.catalogue.find(name))
        wanted, before = dataclasses.replace(slot.setup, **given), slot.setup
        wanted.options(self.options.load)  # whether they can be
        loads = slot.served is None and not slot.changes
        if loads:
            slot.setup = dataclasses.replace(wanted, template=before.template)
        problem = slot.problem
        try:
            await self._ready(slot, None)
        except BaseException as error:
            if loads:
                slot.setup = before
                if isinstance(error.__cause__, OptionError):  # it is the request that is wrong, not the model
                    slot.problem = problem
                    raise error.__cause__ from None
            raise
        changed = await self._changer.change(slot, wanted, given, force)
        return ["loaded", *changed] if loads else changed

    async def unload(self, name: str | None, force: bool = False) -> bool:
        """Out of memory when its answers are over, or with `force` at once; also what brings it there is given up. False: it was
        not in memory. Others that unload it too wait for the same answers."""
        slot = self._slot(self.catalogue.find(name))
        with self._mover.leaving(slot):  # a lost one would come back as soon as its loading is given up
            await self._mover.give_up(slot)
        if force:
            return await self._mover.unload(slot, None)
        async with self._changer.changing(slot, leaves=True) as change:
            return await self._mover.unload(slot, change)

    def keep(self, name: str | None, seconds: float | None) -> None:
        """How long a model stays in memory without a request from now on; None: as the server says."""
        slot = self._slot(self.catalogue.find(name))
        slot.keep, slot.left_at = seconds, time.monotonic()

    def _tell(self, slot: Slot) -> None:
        self.news.tell(slot.source.name, MOVED)

    # coming and going

    def _slot(self, source: Source) -> Slot:
        slot = self._slots.get(source.name)
        if slot is None:
            slot = self._slots[source.name] = Slot(source)
            slot.listeners.append(lambda what, done, total: self._tell(slot))
        elif slot.served is None and slot.task is None:
            slot.source = source  # its file may be another one by now
        return slot

    async def _ready(self, slot: Slot, progress: Progress | None) -> Served:
        self._watch.begin()
        if progress is not None:
            slot.listeners.append(progress)
        try:
            while True:
                if self.draining:
                    raise DrainingError("the server is shutting down; ask another one, or later", retry_after=5)
                if slot.ready and slot.served is not None:
                    return slot.served
                await asyncio.shield(self._bring(slot))  # it goes on for others, whoever leaves
        finally:
            if progress is not None:
                slot.listeners.remove(progress)

    def _bring(self, slot: Slot) -> asyncio.Task[None]:
        if slot.task is None:
            slot.task = asyncio.create_task(self._mover.bring(slot.begin()))
            slot.task.add_done_callback(_seen)
        return slot.task

    async def preload(self, progress: Progress | None = None) -> Served | None:
        """Load the first model before anybody asks. None: there is none, or it is not wanted any more. Raises ModelLoadError."""
        if self.catalogue.default is None:
            return None
        try:
            return await self._ready(self._slot(self.catalogue.find(None)), progress)
        except (GivenUpError, DrainingError):
            return None

    async def close(self) -> None:
        """End all that runs, and free the memory. Whoever calls waits until it is done."""
        self.draining = True
        self._closing = self._closing or asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._mover.end()
        await self._watch.close()
        for slot in list(self._slots.values()):
            if slot.task is not None:
                await asyncio.wait({slot.task})
        for slot in list(self._slots.values()):
            async with slot.lock:  # a change that is under way has it until it has noticed
                await self._mover.close(slot)
        await self._mover.settled()
        await self._changer.close()
        await self.downloads.close()
        self.news.end()


def _seen(task: asyncio.Task[None]) -> None:
    """What a load raised is for those who wait for it, and there may be none."""
    if not task.cancelled():
        task.exception()


def _shown(what: str, done: int, total: int) -> str:
    """A stage of loading for people."""
    return f"{what or 'waiting'}, {done * 100 // total} %" if total else what or "waiting"
