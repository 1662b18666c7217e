"""Models that make room for each other: put aside with what they have run, closed when nothing else helps, unloaded when idle."""

from __future__ import annotations

import asyncio
import contextlib
import shutil

import pytest

from lacewing.options import LoadOptions
from lacewing.placement import room as placement_room
from lacewing.server.models import room, watching
from lacewing.server.models.names import Source
from lacewing.server.models.room import Action, Footprint
from lacewing.server.models.served import Slot
from lacewing.weights.experts import SlotCount
from tests.server.models.test_registry import registry_of

# A tiny model takes 8.9 MB by its plan, 6.0 MB when it is there, and 0.76 MB of these are weights.
BOTH, ONE_ASIDE, ONE = 16_000_000, 14_600_000, 10_000_000


def load(memory: int) -> LoadOptions:
    return LoadOptions(backend="reference", context=256, sequences=2, kv_tokens=256, memory_bytes=memory)


@pytest.fixture
def paths(tiny_path, tmp_path):
    return [shutil.copy(tiny_path, tmp_path / f"{name}.gguf") for name in ("a", "b", "c")]


def statuses(registry) -> str:
    return " ".join(entry.status for entry in registry.names())


async def ask(registry, name: str) -> str:
    async with registry.use(name) as served:
        return served.model.generate("one two three", max_tokens=4, temperature=0)


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


def test_what_fits_stays(paths):
    async def run():
        async with registry_of(*paths[:2], load=load(BOTH)) as registry:
            await ask(registry, "a")
            await ask(registry, "b")
            assert statuses(registry) == "loaded loaded"

    asyncio.run(run())


def test_a_model_is_put_aside_with_its_kv_cache_and_comes_back(paths):
    async def run():
        async with registry_of(*paths[:2], load=load(ONE_ASIDE)) as registry:
            said = await ask(registry, "a")
            first = registry._slots["a"].served.model
            ids, residency = list(first.engine.cached), first.weights.residency
            assert residency == "eager" and ids
            await ask(registry, "b")
            assert statuses(registry) == "aside loaded" and first.weights.residency == "lazy" and first.weights.anonymous_bytes == 0
            assert registry.health.status == "ok"
            async with registry.use("a") as served:
                assert served.model is first and first.weights.residency == "eager"
                assert first.engine.held(ids) == len(ids)
            assert statuses(registry) == "loaded aside" and await ask(registry, "a") == said
            assert (registry.counts.asides, registry.counts.unloads) == (2, 0)

    asyncio.run(run())


def test_a_model_that_was_put_aside_is_closed_before_one_that_is_used(paths):
    async def run():
        async with registry_of(*paths, load=load(ONE_ASIDE)) as registry:
            await ask(registry, "a")
            await ask(registry, "b")
            await ask(registry, "c")
            assert statuses(registry) == "unloaded aside loaded"

    asyncio.run(run())


def test_who_waits_for_room_is_told_and_comes_before_later_requests(paths):
    async def run():
        async with registry_of(*paths[:2], load=load(ONE)) as registry:
            order, told = [], []

            async def use(name, progress=None):
                async with registry.use(name, progress):
                    order.append(name)

            async with registry.use("a"):
                other = asyncio.create_task(use("b", lambda *stage: told.append(stage[0])))
                await until(lambda: "waiting for answers of a" in told)
                again = asyncio.create_task(use("a"))  # a stream of requests to one model does not keep the other away
                await asyncio.sleep(0.1)
                assert not order and registry._slots["a"].served is not None
            await asyncio.gather(other, again)
            assert order == ["b", "a"] and statuses(registry) == "loaded unloaded"

    asyncio.run(run())


def test_closing_does_not_wait_for_those_who_wait(paths):
    async def run():
        async with contextlib.AsyncExitStack() as stack:
            registry = await stack.enter_async_context(registry_of(*paths[:2], load=load(ONE)))
            user = await stack.enter_async_context(registry.use("a"))
            other = asyncio.create_task(registry.preload())
            waiting = asyncio.create_task(ask(registry, "b"))
            await asyncio.sleep(0.2)
            await registry.close()
            assert user.worker.closed
            await asyncio.gather(other, waiting, return_exceptions=True)
            assert waiting.exception() is not None

    asyncio.run(run())


def test_a_model_that_fits_not_even_alone(paths):
    async def run():
        async with registry_of(*paths[:2], load=load(1_000_000)) as registry:
            with pytest.raises(Exception, match="could not be loaded"):
                await ask(registry, "a")
            assert registry.health.status == "failed" and "memory option" in registry.health.message

    asyncio.run(run())


def test_idle_models_are_unloaded(paths):
    async def run():
        async with registry_of(*paths[:2], load=load(BOTH), idle_unload=0.3) as registry:
            await ask(registry, "a")
            async with registry.use("b"):
                await until(lambda: statuses(registry) == "unloaded loaded")
                await asyncio.sleep(1.2)
                assert statuses(registry) == "unloaded loaded"  # it is used
            await until(lambda: statuses(registry) == "unloaded unloaded")
            assert await ask(registry, "a")

    asyncio.run(run())


def test_what_a_gpu_had_run_comes_back(paths):
    """A model that leaves a device is closed; its last sequence is kept, and found when it is loaded again."""

    async def run():
        async with registry_of(paths[0], load=load(BOTH)) as registry:
            await ask(registry, "a")
            slot = registry._slots["a"]
            ids = list(slot.served.model.engine.cached)
            await registry._mover.make_room(Action("close", slot, 0, 1, True), Slot(Source("b", "b")).begin())
            assert slot.served is None and slot.kept is not None
            async with registry.use("a") as served:
                assert served.model.engine.held(ids) == len(ids) and slot.kept is None

    asyncio.run(run())


def test_a_model_that_is_lost_is_told_and_loaded_again(paths, monkeypatch):
    monkeypatch.setattr(watching, "_EVERY", 0.02)

    async def run():
        async with registry_of(*paths[:2], load=load(BOTH)) as registry:
            await ask(registry, "a")
            await ask(registry, "b")
            lost = registry._slots["a"].served
            loads = registry.counts.loads
            lost.worker.fault = RuntimeError("the device is gone")
            assert registry._slots["a"].status == "failed"
            health = registry.health
            await until(lambda: registry.health.status == "failed" or registry.counts.loads > loads)
            health = registry.health if registry.health.status == "failed" else health
            await until(lambda: registry.health.status == "ok" and registry.counts.loads > loads)
            assert lost.worker.closed and registry._slots["a"].served is not lost
            assert await ask(registry, "a") and not registry._slots["b"].served.worker.closed

    asyncio.run(run())


def test_health_says_that_the_weights_changed_and_what_to_do(paths, monkeypatch):
    monkeypatch.setattr(watching, "_EVERY", 0.02)

    async def run():
        options = LoadOptions(backend="reference", context=256, residency="lazy")
        async with registry_of(paths[0], load=options) as registry:
            said = await ask(registry, "a")
            whole = paths[0].read_bytes()
            paths[0].write_bytes(b"nothing")
            await until(lambda: registry.health.status == "failed" and registry.counts.failures > 0)
            assert "a could not be loaded" in registry.health.message
            slot = registry._slots["a"]
            assert slot.lost and slot.retry_at > 0 and slot.tries >= 1
            paths[0].write_bytes(whole)
            await until(lambda: registry.health.status == "ok")
            assert await ask(registry, "a") == said

    asyncio.run(run())


class Fake:
    """A placement as far as `first_fit` looks at it."""

    def __init__(self, device: int, residency: str, whole: bool = False, slots: int = 0):
        self.device_bytes, self.plan, self.on_host, self.gpu = device, self, not whole, device or None
        self.residency, self.slots = residency, None if residency != "streamed" else SlotCount(slots, 2)


def footprint(name: str, left: float = 0.0, device: int = 0, users: int = 0, aside: bool = False) -> Footprint:
    slot = Slot(Source(name, name), users=users, aside=aside, left_at=left)
    return Footprint(slot, 10, 0 if aside or device else 6, device)


def names(ways: list[Action]) -> list[str]:
    return [f"{each.what} {each.slot.source.name}" for each in ways]


def test_the_cheapest_goes_first():
    ways = room.actions(
        [footprint("new", 3), footprint("busy", 1, users=1), footprint("old", 2), footprint("parked", 9, aside=True)]
    )
    assert names(ways) == ["aside old", "aside new", "aside busy", "close parked", "close old", "close new", "close busy"]
    assert [each.for_speed for each in ways] == [True] * 4 + [False] * 3
    ways = room.actions([footprint("gpu", device=5, left=1), footprint("busy gpu", device=5, users=2)])
    assert names(ways) == ["close gpu", "close busy gpu"] and [each.for_speed for each in ways] == [True, False]


def test_only_what_is_needed_is_given_up(monkeypatch):
    """Eager weights are worth putting others aside, but not worth closing one that is there."""
    info = type("Info", (), {"options": LoadOptions()})()
    found = {}

    def place(info, options, *, spare, freed):
        found["asked"] = [*found.get("asked", ()), (spare, freed)]
        return found["answer"](spare, freed)

    monkeypatch.setattr(placement_room, "place", place)
    two = [footprint("a", left=1), footprint("b", left=2)]
    found["answer"] = lambda spare, freed: Fake(0, "eager")
    assert room.plan(info, two)[0] == []
    found["answer"] = lambda spare, freed: Fake(0, "eager" if spare >= 6 else "lazy")
    assert names(room.plan(info, two)[0]) == ["aside a"]
    found["answer"] = lambda spare, freed: Fake(0, "eager" if spare >= 13 else "lazy")
    assert names(room.plan(info, two)[0]) == []
    found["answer"] = lambda spare, freed: Fake(0, "streamed", slots=8 if spare >= 6 else 3)  # more slots are fewer reads
    assert names(room.plan(info, two)[0]) == ["aside a"]
    on_gpu = [footprint("a", device=8, left=1), footprint("b", device=8, left=2), footprint("c", left=0)]
    found["answer"] = lambda spare, freed: Fake(8, "lazy", True) if freed >= 8 else Fake(0, "eager")
    assert names(room.plan(info, on_gpu)[0]) == ["close a"]
    found["answer"] = lambda spare, freed: Fake(min(8, 3 + freed), "eager")
    assert names(room.plan(info, on_gpu)[0])[-1] == "close a"
