"""Several things are under way with one model, or one is when the server ends: each is told, given up and waited for by itself."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import httpx
import pytest

from lacewing.errors import LacewingError
from lacewing.options import LoadOptions
from lacewing.server.errors import ModelLoadError
from lacewing.server.models import loading
from tests.server.models.test_registry import paths, registry_of  # noqa: F401  # the former is a fixture
from tests.server.models.test_unload import SOON, held, slow_residency, soon, statuses, use
from tests.server.serving import administered


def test_the_first_load_may_be_given_up(paths, monkeypatch):  # noqa: F811
    """Whoever waits for it is told so; the server goes on, and the next request loads the model."""

    async def run():
        async with registry_of(*paths) as registry:
            with held(monkeypatch) as (there, go_on):
                first = asyncio.create_task(registry.preload())
                waiting = asyncio.create_task(use(registry, None))
                await asyncio.to_thread(there.wait, SOON)
                unloading = asyncio.create_task(registry.unload(None))
                await asyncio.sleep(0.05)
                go_on.set()
                assert not await soon(unloading) and await soon(first) is None
                with pytest.raises(ModelLoadError, match="given up"):
                    await soon(waiting)
            assert statuses(registry) == "unloaded unloaded" and registry.health.status == "ok"
            await soon(use(registry, None))

    asyncio.run(run())


def test_one_change_ends_while_another_goes_on(paths, monkeypatch):  # noqa: F811
    """The model is said to change until all changes are over."""

    async def run():
        async with registry_of(*paths) as registry:
            await use(registry, None)
            with held(monkeypatch) as (there, go_on):
                other = asyncio.create_task(use(registry, "second"))  # has the turn
                await asyncio.to_thread(there.wait, SOON)
                changing = asyncio.create_task(registry.load(None, {"residency": "lazy"}))
                await asyncio.sleep(0.05)
                async with registry.use(None):
                    leaving = asyncio.create_task(registry.unload(None))
                    while not registry._slots[paths[0].stem].leaving:
                        await asyncio.sleep(0.01)
                    go_on.set()
                    await soon(changing)
                    assert registry.entry(None).changing and registry.entry(None).stage[0].startswith("waiting for answers")
            assert await soon(leaving) and not registry.entry(None).changing
            await soon(other)

    asyncio.run(run())


def test_a_change_of_residency_that_is_under_way_is_waited_for(paths, monkeypatch):  # noqa: F811
    """It is given up when the server ends, and nobody closes the model meanwhile."""
    there, ended = slow_residency(monkeypatch, 0.2)

    async def run():
        async with registry_of(*paths) as registry:
            await use(registry, None)
            changing = asyncio.create_task(registry.load(None, {"residency": "eager"}))
            await asyncio.to_thread(there.wait, SOON)
            late = asyncio.create_task(registry.load(None, {"residency": "lazy"}))  # waits for its turn
            await asyncio.sleep(0.05)
        assert ended == [(True, True)] and not registry.served
        for task in (changing, late):
            with contextlib.suppress(LacewingError):
                await soon(task)
        assert ended == [(True, True)]  # what waited did nothing

    asyncio.run(run())


def test_an_idle_model_that_leaves_is_waited_for(paths, monkeypatch):  # noqa: F811
    there, gone, unload = threading.Event(), threading.Event(), loading.unload

    def slow(served):
        there.set()
        time.sleep(0.3)
        unload(served)
        gone.set()

    monkeypatch.setattr(loading, "unload", slow)

    async def run():
        async with registry_of(*paths, idle_unload=0.05) as registry:
            await use(registry, None)
            await asyncio.to_thread(there.wait, SOON)
        assert gone.is_set()

    asyncio.run(run())


def test_options_that_a_model_cannot_have_are_the_fault_of_the_request(paths):  # noqa: F811
    load = LoadOptions(sequences=2, context=256, backend="cpu", threads=1)
    with administered(*paths, load=load) as (url, _):
        body = {"model": "second", "residency": "streamed", "wait": True}
        answer = httpx.post(f"{url}/models/load", json=body, timeout=60)
        assert answer.status_code == 400 and "only mixtures of experts" in answer.json()["error"]["message"]
        assert httpx.get(f"{url}/health").status_code == 200
        del body["residency"]
        assert httpx.post(f"{url}/models/load", json=body, timeout=60).json()["changed"] == ["loaded"]
