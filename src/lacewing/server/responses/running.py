"""Responses in the background: they go on without the client that asked, and anybody who knows their id may follow them."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from lacewing.server.context import Limits
from lacewing.server.errors import DrainingError
from lacewing.server.responses.create import ResponseExchange
from lacewing.server.responses.database import StoreError
from lacewing.server.sse import EventStream, Receive, Send, unless_gone

_KEPT = 64  # that are over, and whose events can still be followed


class Run:
    """One of them. Its events so far are the writer's log; `changed` is set when more of them have come, and is then another."""

    def __init__(self, exchange: ResponseExchange):
        self.exchange, self.writer = exchange, exchange.writer
        self.changed = asyncio.Event()
        self.task = asyncio.create_task(self._work())

    @property
    def done(self) -> bool:
        return self.task.done()

    async def cancel(self) -> None:
        """Returns once it is over, and kept so."""
        self.task.cancel()
        await asyncio.wait((self.task,))

    async def _work(self) -> None:
        try:
            await self.exchange.run(self._sent)
        finally:
            asyncio.get_running_loop().call_soon(self._tell)  # once the task is done

    async def _sent(self, message: MutableMapping[str, Any]) -> None:
        self._tell()

    def _tell(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Runs:
    """All of a server, by the ids of their responses."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}

    async def start(self, exchange: ResponseExchange) -> Run:
        """Raises QueueFullError where too many wait already, StoreError where it cannot be kept."""
        exchange.context.room.enter().leave()
        exchange.writer.queued()
        await exchange.save()
        response = exchange.writer.response
        if not exchange.keeps:
            raise StoreError("the response cannot be kept, so it cannot run in the background; the server's log has the reason")
        run = self._runs[response["id"]] = Run(exchange)
        over = [id for id, each in self._runs.items() if each.done]
        for id in over[: max(0, len(over) - _KEPT)]:
            del self._runs[id]
        return run

    def find(self, id: str) -> Run | None:
        return self._runs.get(id)

    def forget(self, id: str) -> None:
        self._runs.pop(id, None)

    async def close(self) -> None:
        """End all: they have failed."""
        for run in list(self._runs.values()):
            if not run.done:
                run.writer.failed(DrainingError("the server has ended before this response"))
                await run.cancel()


class Follow:
    """An ASGI application: the events of a run that come after the one of that number, as long as the client stays."""

    def __init__(self, run: Run, after: int, limits: Limits):
        self._run, self._at, self._limits = run, after + 1, limits

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        await unless_gone(self._write(send), receive)

    async def _write(self, send: Send) -> None:
        run, events = self._run, EventStream(send, self._limits.ping_seconds, self._limits.write_seconds)
        try:
            while True:
                changed, done = run.changed, run.done
                some = run.writer.log[self._at :]
                if some:
                    self._at += len(some)
                    await events.write(b"".join(some))
                elif done:
                    return await events.end()
                else:
                    await changed.wait()
        finally:
            events.close()
