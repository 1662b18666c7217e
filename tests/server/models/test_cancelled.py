"""Whoever has a model changed may be cancelled at any time: nothing is left behind, and nobody else gets the model too early."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from lacewing.server.models import loading
from lacewing.server.models.room import Action
from tests.server.models.test_registry import paths, registry_of  # noqa: F401  # the former is a fixture
from tests.server.models.test_unload import SOON, held_aside, slow_residency, soon, statuses, use


async def cancel(task):
    task.cancel()
    await asyncio.sleep(0.05)
    assert not task.done(), "it does not wait for what it has begun"


async def cancelled(task):
    with contextlib.suppress(asyncio.CancelledError):
        await soon(task)
    assert task.cancelled()


@pytest.fixture
def made(monkeypatch):
    """All models that were loaded."""
    found, load = [], loading.load
    monkeypatch.setattr(loading, "load", lambda *given, **more: found.append(load(*given, **more)) or found[-1])
    return found


def test_a_reload_leaves_no_second_model(paths, monkeypatch, made):  # noqa: F811
    """The new one is nearly there, and too far to notice that nobody wants it."""
    there, go_on, load = threading.Event(), threading.Event(), loading.load

    def slow(*given, **more):
        model = load(*given, **more)
        there.set()
        assert go_on.wait(60)
        return model

    async def run():
        async with registry_of(*paths) as registry:
            await use(registry, None)
            with monkeypatch.context() as patch:
                patch.setattr(loading, "load", slow)
                changing = asyncio.create_task(registry.load(None, {"context": 128}))
                await asyncio.to_thread(there.wait, SOON)
                await cancel(changing)
                await cancel(changing)  # an impatient one
                go_on.set()
                await cancelled(changing)
            assert [model.on_device for model in made] == [True, False] and registry.served[0].model is made[0]
            assert registry.entry(None).setup.context is None and not registry.entry(None).changing
            assert await soon(registry.load(None, {"context": 128})) == ["context"]

    asyncio.run(run())


def test_a_worker_that_cannot_be_made_leaves_no_model(paths, monkeypatch, made):  # noqa: F811
    async def run():
        async with registry_of(*paths) as registry:
            make, faults = registry._mover._make_worker, [RuntimeError("can't start new thread")]

            def failing(*given):
                if faults:
                    raise faults.pop()
                return make(*given)

            registry._mover._make_worker = failing
            with pytest.raises(Exception, match="new thread"):
                await use(registry, None)
            assert [model.on_device for model in made] == [False]
            await use(registry, None)

    asyncio.run(run())


def test_a_change_of_residency_keeps_the_model_until_its_thread_is_over(paths, monkeypatch):  # noqa: F811
    there, ended = slow_residency(monkeypatch, 0.3)

    async def run():
        async with registry_of(*paths) as registry:
            await use(registry, None)
            changing = asyncio.create_task(registry.load(None, {"residency": "eager"}))
            await asyncio.to_thread(there.wait, SOON)
            await cancel(changing)
            assert await soon(registry.unload(None, force=True)) and statuses(registry) == "unloaded unloaded"
            await cancelled(changing)
        assert ended == [(True, True)]  # and it was told to give up

    asyncio.run(run())


def test_a_model_that_is_put_aside_for_one_that_is_given_up_comes_back(paths, monkeypatch):  # noqa: F811
    there, go_on, _ = held_aside(monkeypatch)

    async def run():
        async with registry_of(*paths) as registry:
            await use(registry, None)
            slot, other = registry._slots[paths[0].stem], registry._slot(registry.catalogue.find("second")).begin()
            was = slot.served.model.weights.residency
            making = asyncio.create_task(registry._mover.make_room(Action("aside", slot, 0, 0, True), other))
            await asyncio.to_thread(there.wait, SOON)
            await cancel(making)
            assert slot.lock.locked() and not slot.ready
            go_on.set()
            await cancelled(making)
            registry._mover.over(other)
            await soon(use(registry, None))
            assert statuses(registry) == "loaded unloaded" and slot.served.model.weights.residency == was

    asyncio.run(run())
