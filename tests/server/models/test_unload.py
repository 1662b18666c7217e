"""A model is unloaded while others come, change and answer: whoever asks for it waits for nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import pytest

from lacewing.api import Model
from lacewing.errors import Cancelled
from lacewing.server.errors import ModelLoadError
from lacewing.server.models import loading, moving, watching
from lacewing.server.models.room import Action
from tests.server.models.test_registry import paths, registry_of  # noqa: F401  # the former is a fixture

SOON = 10  # seconds in which what waits for nobody is done, on a machine with other work


@contextlib.contextmanager
def held(monkeypatch):
    """Loading stops until it is let go: (somebody is there, go on)."""
    there, go_on, load = threading.Event(), threading.Event(), loading.load

    def slow(*given, **more):
        there.set()
        assert go_on.wait(60)
        return load(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(loading, "load", slow)
        try:
            yield there, go_on
        finally:
            go_on.set()


def held_aside(monkeypatch):
    """Events: a model is being put aside; go on. And whether it was on its device at that time, each time."""
    there, go_on, aside, on_device = threading.Event(), threading.Event(), loading.lay_aside, []

    def slow(model):
        there.set()
        assert go_on.wait(60)
        on_device.append(model.on_device)
        return aside(model)

    monkeypatch.setattr(loading, "lay_aside", slow)
    return there, go_on, on_device


def slow_residency(monkeypatch, seconds):
    """A change of residency that ends so long after it is given up. Event: it has begun. And at its end, each time, whether the
    model was on its device, and whether somebody gave it up."""
    there, ended = threading.Event(), []

    def slow(model, wanted, progress=None, cancelled=None, **more):
        there.set()
        until = time.monotonic() + SOON
        while not cancelled() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(seconds)  # a read that takes its time
        ended.append((model.on_device, time.monotonic() < until))

    monkeypatch.setattr(Model, "set_residency", slow)
    return there, ended


async def soon(work):
    return await asyncio.wait_for(work, SOON)


def statuses(registry) -> str:
    return " ".join(entry.status for entry in registry.names())


async def use(registry, name) -> None:
    async with registry.use(name):
        pass


@pytest.mark.parametrize("force", [True, False])
def test_beside_another_that_is_being_loaded(paths, monkeypatch, force):  # noqa: F811
    async def run():
        async with registry_of(*paths) as registry:
            await use(registry, None)
            with held(monkeypatch) as (there, go_on):
                other = asyncio.create_task(use(registry, "second"))
                await asyncio.to_thread(there.wait, SOON)
                assert await soon(registry.unload(None, force)) and statuses(registry) == "unloaded loading"
                assert not await soon(registry.unload(None, force))  # it is not there
                go_on.set()
                await soon(other)
            assert statuses(registry) == "unloaded loaded"
            await use(registry, None)

    asyncio.run(run())


def test_one_that_waits_for_another(paths, monkeypatch):  # noqa: F811
    """It is given up where it stands in the queue, and the one before it goes on."""

    async def run():
        async with registry_of(*paths) as registry:
            with held(monkeypatch) as (there, go_on):
                first = asyncio.create_task(use(registry, None))
                await asyncio.to_thread(there.wait, SOON)
                second = asyncio.create_task(use(registry, "second"))
                while "waiting for other models" not in registry.entry("second").stage:
                    await asyncio.sleep(0.01)
                assert not await soon(registry.unload("second", True))
                with pytest.raises(ModelLoadError, match="given up"):
                    await soon(second)
                go_on.set()
                await soon(first)
            await use(registry, "second")

    asyncio.run(run())


def test_answers_that_are_waited_for_keep_no_other_model_away(paths):  # noqa: F811
    async def run():
        async with registry_of(*paths) as registry:
            async with registry.use(None):
                leaving = asyncio.create_task(registry.unload(None))
                while not registry._slots[paths[0].stem].leaving:
                    await asyncio.sleep(0.01)
                again = asyncio.create_task(use(registry, None))  # this one waits, and gets it anew
                await soon(use(registry, "second"))
                assert not leaving.done() and not again.done()
            assert await soon(leaving)
            await soon(again)
            assert registry.counts.loads == 3 and statuses(registry) == "loaded loaded"

    asyncio.run(run())


def test_whoever_waits_for_answers_may_end_them_after_all(paths):  # noqa: F811
    async def run():
        async with registry_of(*paths) as registry:
            async with registry.use(None) as served:
                leaving = asyncio.create_task(registry.unload(None))
                while not registry.entry(None).changing:
                    await asyncio.sleep(0.01)
                assert await soon(registry.unload(None, force=True)) and served.worker.closed
            with contextlib.suppress(Cancelled):
                await soon(leaving)
            assert statuses(registry) == "unloaded unloaded"
            await use(registry, None)

    asyncio.run(run())


def test_what_is_just_put_aside_is_closed_afterwards(paths, monkeypatch):  # noqa: F811
    """Two threads never have their hands on one model."""
    there, go_on, on_device = held_aside(monkeypatch)

    async def run():
        async with registry_of(*paths) as registry:
            await use(registry, None)
            slot, other = registry._slots[paths[0].stem], registry._slot(registry.catalogue.find("second")).begin()
            making = asyncio.create_task(registry._mover.make_room(Action("aside", slot, 0, 0, True), other))
            await asyncio.to_thread(there.wait, SOON)
            unloading = asyncio.create_task(registry.unload(None, force=True))
            await asyncio.sleep(0.05)
            assert not unloading.done()
            go_on.set()
            await soon(making)
            assert await soon(unloading) and on_device == [True] and not slot.aside

    asyncio.run(run())


def test_a_load_plans_when_the_memory_of_what_leaves_is_free(paths, monkeypatch):  # noqa: F811
    async def run():
        async with registry_of(*paths) as registry:
            await use(registry, None)
            freeing, freed, unload, planned = threading.Event(), threading.Event(), loading.unload, threading.Event()
            plan = moving.plan

            def slow(served):
                freeing.set()
                assert freed.wait(60)
                unload(served)

            monkeypatch.setattr(loading, "unload", slow)
            monkeypatch.setattr(moving, "plan", lambda *given: planned.set() or plan(*given))
            leaving = asyncio.create_task(registry.unload(None, True))
            await asyncio.to_thread(freeing.wait, SOON)
            other = asyncio.create_task(use(registry, "second"))
            assert not await asyncio.to_thread(planned.wait, 0.3)
            freed.set()
            await soon(leaving)
            await soon(other)
            assert planned.is_set() and statuses(registry) == "unloaded loaded"

    asyncio.run(run())


def test_two_that_unload_wait_for_the_same_answers(paths):  # noqa: F811
    async def run():
        async with registry_of(*paths) as registry:
            async with registry.use(None):
                both = [asyncio.create_task(registry.unload(None)) for _ in range(2)]
                while registry._slots[paths[0].stem].leaving < 2:
                    await asyncio.sleep(0.01)
            assert [await soon(each) for each in both] == [True, True]
            assert statuses(registry) == "unloaded unloaded" and registry.counts.unloads == 1

    asyncio.run(run())


@pytest.mark.parametrize("force", [True, False])
def test_one_that_was_lost_stays_away(paths, monkeypatch, force):  # noqa: F811
    """It would come back by itself; who unloads it does not want it any more."""
    monkeypatch.setattr(watching, "_EVERY", 0.01)

    async def run():
        async with registry_of(*paths) as registry:
            async with registry.use(None) as served:
                with held(monkeypatch) as (there, go_on):
                    served.worker.fault = RuntimeError("the device is lost")
                    await asyncio.to_thread(there.wait, SOON)  # it is being loaded again
                    assert registry.health.status == "failed"
                    leaving = asyncio.create_task(registry.unload(None, force))
                    await asyncio.sleep(0.05)
                    go_on.set()
                    await asyncio.sleep(0.05)
            await soon(leaving)
            await asyncio.sleep(0.2)
            assert statuses(registry) == "unloaded unloaded" and registry.health.status == "ok"
            await use(registry, None)

    asyncio.run(run())


def test_one_that_could_not_be_loaded_is_forgotten(paths, monkeypatch):  # noqa: F811
    async def run():
        async with registry_of(*paths) as registry:
            with monkeypatch.context() as patch:
                patch.setattr(loading, "load", lambda *given, **more: 1 / 0)
                with pytest.raises(ModelLoadError):
                    await use(registry, None)
            assert statuses(registry) == "failed unloaded" and registry.health.status == "failed"
            assert not await soon(registry.unload(None))
            assert statuses(registry) == "unloaded unloaded" and registry.health.status == "ok"

    asyncio.run(run())


def test_a_model_that_comes_keeps_nobody_from_looking_after_the_others(paths, monkeypatch):  # noqa: F811
    """An idle one leaves, and one that is lost is noticed, while another is being loaded."""
    monkeypatch.setattr(watching, "_EVERY", 0.01)

    async def run():
        async with registry_of(*paths) as registry:
            await use(registry, None)
            with held(monkeypatch) as (there, go_on):
                other = asyncio.create_task(use(registry, "second"))
                await asyncio.to_thread(there.wait, SOON)
                registry.keep(None, 0.05)
                async with asyncio.timeout(SOON):
                    while statuses(registry) != "unloaded loading":
                        await asyncio.sleep(0.01)
                go_on.set()
                await soon(other)

    asyncio.run(run())


def test_a_disk_that_hangs_keeps_nobody_from_looking_after_the_others(paths, monkeypatch):  # noqa: F811
    monkeypatch.setattr(watching, "_EVERY", 0.01)
    hangs = threading.Event()

    async def run():
        async with registry_of(*paths) as registry, registry.use(None) as first, registry.use("second") as second:
            monkeypatch.setattr(first.model.weights, "check_files", lambda **_: hangs.wait(60))
            await asyncio.sleep(0.1)
            second.worker.fault = RuntimeError("the device is lost")
            async with asyncio.timeout(SOON):
                while registry.counts.loads < 3:
                    await asyncio.sleep(0.01)
            hangs.set()

    asyncio.run(run())
