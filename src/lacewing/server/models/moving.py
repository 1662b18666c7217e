"""Models come into memory and leave it: one at a time, so that each finds what the one before has left."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lacewing.api import Model
from lacewing.assistant.templates import AUTO
from lacewing.errors import LacewingError, ModelFormatError
from lacewing.options import Progress
from lacewing.placement.info import ModelInfo
from lacewing.placement.place import Placement
from lacewing.server.errors import DrainingError, GivenUpError, ModelLoadError
from lacewing.server.models import loading
from lacewing.server.models.changes import Changes
from lacewing.server.models.room import Action, Footprint, plan, plan_resident
from lacewing.server.models.served import Change, Counts, Served, Slot
from lacewing.server.options import ServerOptions

MakeWorker = Callable[[Model, asyncio.AbstractEventLoop], Any]

_RETRY = 1.0, 60.0  # seconds after which a model that was lost is loaded again: at first, and at most
_log = logging.getLogger("lacewing.server")


class Mover(Changes):
    """Brings models of `slots` into memory, with `worker` to run each. Of the event loop's thread only."""

    def __init__(self, slots: Mapping[str, Slot], options: ServerOptions, worker: MakeWorker):
        super().__init__()
        self._slots, self.options, self._make_worker = slots, options, worker
        self._retiring: set[Served] = set()
        self._closing: set[asyncio.Future[None]] = set()
        self.loaded: Callable[[Served], None] = lambda served: None  # is told of each model that has been loaded
        self.counts = Counts()

    async def bring(self, change: Change) -> None:
        """Into memory, whatever has to be done for it. Raises ModelLoadError, DrainingError."""
        began, slot = time.monotonic(), change.slot
        try:
            self.moved(slot)
            slot.report("waiting for other models", 0, 0)
            async with self.turn_of(change), slot.lock:
                if slot.served is not None:
                    await self._back(change)
                if slot.served is None:
                    await self._load(change)
            slot.problem, slot.tries, slot.lost = "", 0, False
            self.counts.loads += 1
            self.counts.load_seconds += time.monotonic() - began
            _log.info("model loaded", extra={"model": slot.source.name, "seconds": round(time.monotonic() - began, 3)})
        except DrainingError:
            raise
        except Exception as error:  # also of drivers
            if self.ending:
                raise self.draining() from error
            if change.given_up:
                raise GivenUpError(f"loading {slot.source.name} was given up", retry_after=10) from error
            slot.problem = f"{slot.source.name} could not be loaded: {str(error) or type(error).__name__}"
            slot.tries += 1
            slot.retry_at = time.monotonic() + min(_RETRY[1], _RETRY[0] * 2 ** min(slot.tries, 10))
            self.counts.failures += 1
            _log.error("model failed to load", extra={"model": slot.source.name, "problem": str(error) or type(error).__name__})
            raise ModelLoadError(slot.problem, retry_after=10) from error
        finally:
            slot.task = None
            self.over(change)

    async def close(self, slot: Slot) -> None:
        """Out of memory; its requests end with an error."""
        served, slot.served, slot.aside = slot.served, None, False
        if served is not None:
            self.counts.unloads += 1
            closing = asyncio.ensure_future(loading.in_thread(partial(loading.unload, served)))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            try:
                await asyncio.shield(closing)  # whoever is cancelled; `settled` waits for it
            finally:
                self.moved(slot)

    async def settled(self) -> None:
        """Until models that are leaving have given their memory back: whoever plans would count it as taken."""
        while self._closing:
            await asyncio.wait(self._closing)

    async def unload_idle(self, slot: Slot, seconds: float) -> None:
        """Out of memory if still nobody has asked for so long. Others may come and go meanwhile."""
        async with slot.lock:
            if slot.served is not None and not slot.users and slot.task is None and time.monotonic() - slot.left_at >= seconds:
                _log.info("model unloaded: idle", extra={"model": slot.source.name})
                slot.forget()
                await self.close(slot)

    async def unload(self, slot: Slot, change: Change | None) -> bool:
        """Out of memory once its answers are over, or at once without a `change` that can be given up; False: it was not there.
        Others may come and go meanwhile: of them only one that is changing this very model now is waited for. Raises as `emptied`.
        """
        there = slot.served is not None
        with self.leaving(slot):
            async with contextlib.nullcontext() if change is None else self.emptied(slot, change), slot.lock:
                there = there or slot.served is not None
                slot.forget()
                await self.close(slot)
        return there

    # one model, with the turn

    async def _load(self, change: Change) -> None:
        slot, info = change.slot, await self.open(change)
        await self.settled()
        todo, placement = await self.run(change, lambda: plan(info, self.footprints(besides=slot)))
        for action in todo:
            await self.make_room(action, change)
        await self.fill(change, info, placement)

    async def open(self, change: Change) -> ModelInfo:
        """Its headers, for the setup that it is to have."""
        source, options = change.slot.source, change.slot.setup.options(self.options.load)
        report, given_up = self._report(change.slot), partial(self.is_given_up, change)
        return await self.run(change, lambda: loading.open_source(source, options, report, given_up))

    async def fill(self, change: Change, info: ModelInfo, placement: Placement) -> None:
        """The model into its slot, in place of the one that may be there. Raises LacewingError; nothing has changed then."""
        slot = change.slot
        loop, report = asyncio.get_running_loop(), self._report(slot)
        info.options = placement.options
        await self.run(change, lambda: loading.size_cache(info, placement))
        model = await self.run(change, lambda: loading.load(info, report, lambda: self.is_given_up(change)), drop=Model.close)
        async with contextlib.AsyncExitStack() as undo:  # nobody else knows of it
            undo.push_async_callback(self.run, change, model.close)
            worker = self._make_worker(model, loop)
            served = Served(slot.source.name, model, worker, int(time.time()))
            undo.push_async_callback(self.run, change, worker.close)
            await self._prepare(change, served)
            undo.pop_all()
        slot.served, slot.aside, slot.was = served, False, "lazy"
        for text in (*model.notices, *(info.chat_notices if slot.setup.template == AUTO else ())):
            _log.warning("notice", extra={"model": slot.source.name, "notice": text})
        self.loaded(served)

    async def _prepare(self, change: Change, served: Served) -> None:
        """What it had run before, and its template. Raises TemplateError."""
        slot = change.slot
        if slot.kept is not None:
            (ids, data), slot.kept = slot.kept, None
            with contextlib.suppress(LacewingError):  # it went to another device, or has another context
                await self.run(change, lambda: served.model.write_state(ids, data))
        if slot.setup.template != AUTO:
            choice, files = slot.setup.template, self.options.allow_paths
            await self.run(change, lambda: loading.use_template(served, choice, force=True, files=files))

    def _report(self, slot: Slot) -> Progress:
        return loading.relay(asyncio.get_running_loop(), slot.report)

    async def _back(self, change: Change) -> None:
        """One that was put aside, or has made room; one of no use any more is closed."""
        slot = change.slot
        served = slot.served
        if served is None or served.worker.fault is not None or slot.problem:
            return await self.close(slot)
        try:
            await self.run(change, lambda: served.model.weights.check_files(eager=True))
        except ModelFormatError:
            return await self.close(slot)
        if slot.was != "lazy":
            await self._resident_again(change, served.model)
        slot.aside, slot.was = False, "lazy"

    async def _resident_again(self, change: Change, model: Model) -> None:
        """If there is room, or idle models make some; lazy weights give the same answers."""
        slot = change.slot
        options = dataclasses.replace(model.options, memory_bytes=self.options.load.memory_bytes, residency=slot.was)
        footprints, own = self.footprints(besides=slot), model.memory_bytes
        todo = await self.run(change, lambda: plan_resident(model.info, options, footprints, own))
        if todo is None:
            return
        actions, wanted = todo
        for action in actions:
            await self.make_room(action, change)
        report = self._report(slot)
        await self.run(change, lambda: loading.make_resident(model, wanted, report, lambda: self.is_given_up(change)))

    # others, which make room

    def footprints(self, besides: Slot | None = None) -> list[Footprint]:
        found = (Footprint.of(slot) for slot in list(self._slots.values()) if slot is not besides)
        return [each for each in found if each is not None]

    async def make_room(self, action: Action, wanted: Change) -> None:
        """One of a plan's actions, for `wanted`. Raises as `emptied`."""
        slot = action.slot
        async with slot.lock:
            served = slot.served
            if served is None:
                return
            _log.info("model makes room", extra={"model": slot.source.name, "how": action.what, "for": wanted.slot.source.name})
            if action.what == "aside":
                slot.aside, slot.was = True, served.model.weights.residency  # also if the change is cancelled meanwhile
                if await self.run(wanted, partial(loading.lay_aside, served.model)):
                    self.counts.asides += 1
                    return
                slot.aside, slot.was = False, "lazy"
        async with self.emptied(slot, wanted), slot.lock:
            if action.device and slot.served is not None:
                slot.kept = await self.run(wanted, partial(loading.keep_state, slot.served.model))
            await self.close(slot)

    async def retire(self, served: Served) -> None:
        """Out of memory once all that have it have finished; another one has taken its place."""
        self._retiring.add(served)
        while served.users and not self.ending:
            await self.change()
        try:
            await loading.in_thread(partial(loading.unload, served))
        finally:
            self._retiring.discard(served)

    @property
    def retiring(self) -> list[Served]:
        """Models that others have taken the place of, and that still answer."""
        return list(self._retiring)
