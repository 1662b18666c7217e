"""A model that is in memory gets another setup: residency, context, template. Nobody's answer is cut."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Collection
from functools import partial

from lacewing.assistant.templates import AUTO
from lacewing.errors import OutOfMemoryError
from lacewing.placement.info import ModelInfo
from lacewing.placement.place import Placement
from lacewing.server.models import loading
from lacewing.server.models.moving import Mover
from lacewing.server.models.room import alone, plan, plan_resident
from lacewing.server.models.served import Change, Served, Slot
from lacewing.server.models.setup import Setup


class Changer:
    """Of the event loop's thread only. `files`: a template may be a file that a request names."""

    def __init__(self, mover: Mover, files: bool):
        self._mover, self._files = mover, files
        self._retiring: set[asyncio.Task[None]] = set()

    async def change(self, slot: Slot, setup: Setup, asked: Collection[str], force: bool) -> list[str]:
        """Which of the fields that were `asked` for are other ones now; a model that has left the memory meanwhile gets them
        when it comes, but for the template.

        `force`: also a residency that the memory plan refuses, and a template whose tokens the vocabulary lacks.
        Raises LacewingError; what comes before the failed one in "context", "residency", "template" has changed then.
        """
        async with self._mover.turn, slot.lock, self.changing(slot) as under_way:
            served, before, changed = slot.served, slot.setup, list[str]()
            if served is None:
                slot.setup = dataclasses.replace(setup, template=before.template)  # which cannot be checked now
                return changed
            if setup.context != before.context and (setup.context or 0) != served.model.spec.context:
                await self._reload(under_way, served, setup)
                return [name for name in asked if name == "context" or getattr(setup, name) != getattr(before, name)]
            if "residency" in asked and await self._residency(under_way, served, setup.residency, force):
                changed.append("residency")
            slot.setup = dataclasses.replace(setup, template=before.template)
            if setup.template != before.template:
                work = partial(loading.use_template, served, setup.template, force=force, files=self._files)
                await self._mover.run(under_way, work)
                slot.setup = setup
                changed.append("template")
            return changed

    @contextlib.asynccontextmanager
    async def changing(self, slot: Slot, leaves: bool = False) -> AsyncIterator[Change]:
        """Its progress is told, and it can be given up, unless the model `leaves`. Raises DrainingError."""
        if self._mover.ending:
            raise self._mover.draining()
        change = slot.begin(leaves)
        try:
            yield change
        finally:
            self._mover.over(change)

    async def _residency(self, change: Change, served: Served, wanted: str | None, force: bool) -> bool:
        """Whether it is another one now. Idle models make room for weights in RAM. Raises OutOfMemoryError, Cancelled."""
        mover, slot, model = self._mover, change.slot, served.model
        general = dataclasses.replace(mover.options.load, residency_is_default=True)
        wanted, before = wanted or model.info.suited(general).residency, model.weights.residency
        if wanted != "lazy" and not (force and wanted == "eager") and model.weights_on_host:
            options = dataclasses.replace(model.options, memory_bytes=mover.options.load.memory_bytes, residency=wanted)
            await mover.settled()
            footprints, own = mover.footprints(besides=slot), model.memory_bytes
            todo = await mover.run(change, lambda: plan_resident(model.info, options, footprints, own))
            for action in todo[0] if todo else ():
                await mover.make_room(action, change)
            if wanted == "auto":
                wanted = todo[1] if todo else "lazy"
        report = loading.relay(asyncio.get_running_loop(), slot.report)
        given_up = partial(mover.is_given_up, change)
        await mover.run(change, lambda: model.set_residency(wanted, report, given_up, force=force, reason="it was asked for"))
        return model.weights.residency != before

    async def _reload(self, change: Change, old: Served, setup: Setup) -> None:
        """Beside the old one if there is room for both as they are to be, else once those that have it have finished."""
        mover, slot, before = self._mover, change.slot, change.slot.setup
        slot.setup = setup
        try:
            info = await mover.open(change)
            beside = await mover.run(change, partial(self._beside, slot, info, old))
            if setup.template not in (AUTO, before.template):
                await mover.run(change, partial(loading.check_template, info, setup.template, files=self._files))
            if beside is not None:
                await mover.fill(change, info, beside)
                task = asyncio.create_task(mover.retire(old))
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)
                return
            await mover.settled()
            todo, _ = await mover.run(change, lambda: plan(info, mover.footprints(besides=slot)))
            async with mover.emptied(slot, change):
                await mover.close(slot)
                for action in todo:
                    await mover.make_room(action, change)
                _, placement = await mover.run(change, lambda: plan(info, mover.footprints(besides=slot)))
                await mover.fill(change, info, placement)
        except BaseException:
            slot.setup = before
            raise

    def _beside(self, slot: Slot, info: ModelInfo, old: Served) -> Placement | None:
        """Where it goes while the old one stays; None: it would be slower there than in its place."""
        if old.model.device_bytes:
            return None
        try:
            placement = alone(info, self._mover.footprints())
        except OutOfMemoryError:
            return None
        _, best = plan(info, self._mover.footprints(besides=slot))
        same = (placement.plan.residency, placement.on_host) == (best.plan.residency, best.on_host)
        return placement if same else None

    async def close(self) -> None:
        """Waits for those that have been replaced."""
        if self._retiring:
            await asyncio.wait(set(self._retiring))
