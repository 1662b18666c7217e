"""A change of a model that takes long is followed by its id, for clients behind a proxy that gives up silent requests."""

from __future__ import annotations

import asyncio
import gc
import time
import traceback
import types
import weakref

import httpx
import pytest
from starlette.datastructures import Headers

from lacewing.errors import OptionError
from lacewing.options import LoadOptions
from lacewing.server.admin import changes
from lacewing.server.models import loading
from tests.checkpoints import tiny
from tests.server.models.test_unload import held
from tests.server.serving import administered

LATER = {"Prefer": "respond-async"}
LOAD = LoadOptions(sequences=2, context=256, backend="cpu", threads=1)


@pytest.fixture
def server(tmp_path):
    with administered(tiny("llama", "gguf", tmp_path), load=LOAD) as (url, _), httpx.Client(base_url=url, timeout=60) as client:
        yield client


def test_a_change_is_followed_to_its_end(server, monkeypatch):
    with held(monkeypatch) as (there, go_on):
        begun = server.post("/models/load", json={"wait": True}, headers=LATER)
        assert begun.status_code == 202 and begun.headers["preference-applied"] == "respond-async", begun.text
        place, found = begun.headers["location"], begun.json()
        assert place == f"/models/changes/{found['change']}" and found["success"] is True
        assert there.wait(10)
        under_way = server.get(place)
        assert under_way.status_code == 202 and under_way.json()["status"]["value"] == "loading"
        assert under_way.json()["status"]["progress"]["current"]
        assert "preference-applied" not in under_way.headers  # nothing was preferred
        assert server.get(place, headers={"Prefer": "wait=0"}).status_code == 202
        assert server.head(place).status_code == 202
        go_on.set()
    done = server.get(place, headers={"Prefer": "wait=30"})
    assert done.status_code == 200 and done.json()["changed"] == ["loaded"]
    assert done.json()["model"]["status"] == {"value": "loaded"} and server.get(place).json() == done.json()


def test_too_many_loads_are_refused_and_an_unload_still_ends_them(server, monkeypatch):
    monkeypatch.setattr(changes, "MOST", 3)
    with held(monkeypatch) as (there, go_on):
        begun = [server.post("/models/load", json={"wait": True}, headers=LATER) for _ in range(3)]
        assert [each.status_code for each in begun] == [202] * 3 and there.wait(10)
        refused = server.post("/models/load", json={"wait": True}, headers=LATER)
        assert refused.status_code == 429 and refused.json()["error"]["code"] == "queue_full"
        assert refused.headers["retry-after"] == "5"
        assert server.post("/models/unload", json={"force": True, "wait": True}, headers=LATER).status_code in (200, 202)
        go_on.set()
    for each in begun:
        server.get(each.headers["location"], headers={"Prefer": "wait=30"})
    assert server.post("/models/load", json={"wait": True}).status_code == 200


def test_what_is_quick_is_answered_at_once(server):
    """After at most so many seconds."""
    for header in ("respond-async, wait=30", "wait=30; respond-async", 'Respond-Async, wait="30"'):
        found = server.post("/models/load", json={"wait": True}, headers={"Prefer": header})
        assert found.status_code == 200 and found.json()["changed"] in (["loaded"], [])
    found = server.post("/models/unload", json={"wait": True}, headers={"Prefer": "respond-async, wait=30"})
    assert found.json()["changed"] == ["unloaded"]


def test_what_goes_wrong_is_told_as_by_the_request_itself(server, monkeypatch):
    use = loading.use_template
    monkeypatch.setattr(loading, "use_template", lambda *given, **more: time.sleep(0.3) or use(*given, **more))
    body = {"wait": True, "template": "nonsense"}
    alone = server.post("/models/load", json=body)
    place = server.post("/models/load", json=body, headers=LATER).headers["location"]
    for _ in range(2):
        later = server.get(place, headers={"Prefer": "wait=30"})
        assert (later.status_code, later.json()) == (alone.status_code, alone.json()) and later.status_code == 400


def test_clients_of_llama_server_have_what_they_had(server):
    """Without `wait` the answer comes at once whatever is preferred, and a preference that is not known is passed over."""
    found = server.post("/models/load", json={}, headers=LATER)
    assert (found.status_code, found.json()) == (200, {"success": True})
    for header in ("wait=1", "handling=strict", "respond-async-not", ""):
        found = server.post("/models/load", json={"wait": True}, headers={"Prefer": header})
        assert found.status_code == 200 and found.json()["changed"] in (["loaded"], [])
    assert server.post("/models/load", json={"model": "nix", "wait": True}, headers=LATER).status_code == 404


def test_changes_that_are_over_are_kept_for_a_while(monkeypatch):
    monkeypatch.setattr(changes, "KEPT", 2)
    context = _context()

    async def run():
        leave = asyncio.Event()

        async def work():
            await leave.wait()
            return []

        first = [changes.begin(context, "tiny", work) for _ in range(4)]
        assert list(context.changes) == first  # all of them go on
        leave.set()
        await asyncio.gather(*(change.task for change in context.changes.values()))
        last = changes.begin(context, "tiny", work)
        assert list(context.changes) == [*first[-2:], last]
        await context.changes[last].task

    asyncio.run(run())


def test_an_error_that_is_kept_keeps_nothing_else():
    """Neither what was being loaded, nor the requests that asked what came of it."""
    context, weights = _context(), list[weakref.ref[Weights]]()
    request = types.SimpleNamespace(
        app=types.SimpleNamespace(state=types.SimpleNamespace(context=context)), headers=Headers({}), method="GET"
    )

    def read() -> None:
        loaded = Weights()
        weights.append(weakref.ref(loaded))
        raise OSError("a disk")

    async def work() -> list[str]:
        try:
            read()
        except OSError as error:
            raise OptionError("a file") from error
        return []

    async def run() -> list[int]:
        id, found = changes.begin(context, "tiny", work), []
        await context.changes[id].task
        gc.collect()
        assert weights[0]() is None
        for _ in range(3):
            with pytest.raises(OptionError, match="a file") as raised:
                await changes.outcome(request, id)
            found.append(len(list(traceback.walk_tb(raised.value.__traceback__))))
        return found

    once, twice, thrice = asyncio.run(run())
    assert once == twice == thrice


def test_a_change_that_is_not_known(server):
    found = server.get("/models/changes/nix")
    assert found.status_code == 404 and found.json()["error"]["code"] == "not_found"


class Weights:
    """Something large."""


def _context() -> types.SimpleNamespace:
    """What changes need of a server."""
    news = types.SimpleNamespace(tell=lambda *_: None)
    registry = types.SimpleNamespace(entry=lambda name: types.SimpleNamespace(name=name), news=news)
    return types.SimpleNamespace(registry=registry, changes={})
