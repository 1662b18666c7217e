"""The loop of a server looks seldom at whether it is to end, and at once when there is a reason."""

from __future__ import annotations

import asyncio
import signal
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

from lacewing.server import run
from lacewing.server.run import Server


class Counting(Server):
    """Counts its looks."""

    looks = 0

    async def on_tick(self, counter: int) -> bool:
        self.looks += 1
        return await super().on_tick(counter)


def server(active: int = 0, seconds: float = 30.0) -> Any:
    gate: Any = SimpleNamespace(active=active, draining=False)
    registry: Any = SimpleNamespace(draining=False, news=SimpleNamespace(end=lambda: None))
    options: Any = SimpleNamespace(shutdown_seconds=seconds)
    made = Counting(uvicorn.Config("no application"), gate, registry, options)
    made.server_state.default_headers = []
    return made, gate


@pytest.fixture(autouse=True)
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that who waits for a look waits too long."""
    monkeypatch.setattr(run, "_TICK", 600.0)


async def ends(made: Any, begin: Any) -> None:
    """After `begin`, which comes once the loop waits."""
    loop = asyncio.create_task(made.main_loop())
    await asyncio.sleep(0.3)
    assert made.looks == 1 and not loop.done()
    begin()
    await asyncio.wait_for(loop, 30)


@pytest.mark.parametrize("how", ["stop", "signal"])
def test_it_ends_at_once(how: str) -> None:
    async def tried() -> None:
        made, _ = server()
        await ends(made, made.stop if how == "stop" else lambda: made.handle_exit(signal.SIGTERM, None))
        assert made.server_state.default_headers  # with the date

    asyncio.run(tried())


def test_answers_are_waited_for_and_their_end_is_seen() -> None:
    async def tried() -> None:
        made, gate = server(active=1)
        asyncio.get_running_loop().call_later(0.8, lambda: setattr(gate, "active", 0))
        await ends(made, lambda: made.handle_exit(signal.SIGTERM, None))
        assert gate.draining and not gate.active

    asyncio.run(tried())
