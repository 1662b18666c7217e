"""GET /models/sse: what happens to models, as it happens."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from starlette.requests import Request

from lacewing.server.admin.entries import described, status
from lacewing.server.context import Context, context_of
from lacewing.server.errors import UnknownModelError
from lacewing.server.models.news import Event
from lacewing.server.models.registry import MOVED
from lacewing.server.openai.types import dumps
from lacewing.server.sse import EventStream, Receive, Send, SlowReaderError, disconnected


class ModelEvents:
    """An ASGI application for one who watches, until he leaves or the server ends."""

    def __init__(self, context: Context):
        self._context = context
        self._last: dict[str, dict[str, Any]] = {}  # what was told of each model

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        limits = self._context.limits
        events = EventStream(send, limits.ping_seconds, limits.write_seconds)
        work = asyncio.ensure_future(self._write(events))
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            events.close()
            for task in (gone, work):
                task.cancel()
            await asyncio.wait((gone, work))
        if not work.cancelled() and not isinstance(work.exception(), SlowReaderError | None):
            work.result()

    async def _write(self, events: EventStream) -> None:
        registry = self._context.registry
        with registry.news.watch() as news:
            for entry in registry.names():
                await self._state(events, entry.name)
            while (event := await news.get()) is not None:
                if event.event == MOVED:
                    await self._state(events, event.model)
                else:
                    await events.write(_line(event))
        await events.end()

    async def _state(self, events: EventStream, name: str) -> None:
        """How a model is, if that is not what was told last; a model that can be used with all that is known of it."""
        registry = self._context.registry
        try:
            entry = registry.entry(name)
        except UnknownModelError:  # its file has gone
            return await events.write(_line(Event(name, "model_remove")))
        found = status(entry)
        data: dict[str, Any] = {"status": found.pop("value"), **found}
        if data["status"] == "loaded" and "progress" not in data:
            (data["info"],) = await described(registry, [entry])
        if self._last.get(name) != data:
            self._last[name] = data
            await events.write(_line(Event(entry.name, "model_status", data)))


def _line(event: Event) -> bytes:
    data = {} if event.data is None else {"data": event.data}
    return f"data: {dumps({'model': event.model, 'event': event.event, **data})}\n\n".encode()


async def model_events(request: Request) -> ModelEvents:
    """Server-sent events of models: loading, changes, downloads."""
    return ModelEvents(context_of(request.app))
