"""Servers for tests: a registry with one model, and uvicorn in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn

from lacewing.api import Model
from lacewing.errors import LacewingError
from lacewing.options import LoadOptions
from lacewing.server.app import create_app
from lacewing.server.models import served
from lacewing.server.models.facts import Facts, KnownFacts
from lacewing.server.models.names import Catalogue
from lacewing.server.models.registry import Registry
from lacewing.server.models.served import Entry
from lacewing.server.options import ServerOptions
from lacewing.server.protocol import configure
from lacewing.server.responses.store import Store
from lacewing.server.worker import Worker


@dataclass
class Limits:
    queue: int = 64
    queue_seconds: float = 60
    request_seconds: float | None = None
    ping_seconds: float = 5
    write_seconds: float = 30


@dataclass
class Served:
    name: str
    model: Model
    worker: Worker
    created: int = 1
    sizes = served.Served.sizes


class UnknownModelError(LacewingError):
    status, code = 404, "model_not_found"


@dataclass
class Health:
    status: str = "ok"
    message: str = ""


class OneModel:
    """A registry of one model, in memory."""

    def __init__(self, model: Model, name: str = "tiny"):
        self.model, self.name = model, name
        self.served: Served | None = None
        self.health = Health()
        self.known = KnownFacts()

    @property
    def default(self) -> str:
        return self.name

    def names(self) -> list[Entry]:
        return [Entry(self.name, 1, "loaded", served=self.served)]

    def entry(self, name: str | None) -> Entry:
        if name not in (None, "", self.name):
            raise UnknownModelError(f"there is no model {name!r} here")
        return self.names()[0]

    def facts(self, entry: Entry) -> Facts:
        return self.known.of(self.model)

    @contextlib.asynccontextmanager
    async def use(self, name: str | None, progress: Any = None) -> AsyncIterator[Served]:
        if name not in (None, "", self.name):
            raise UnknownModelError(f"there is no model {name!r} here")
        if self.served is None:
            self.served = Served(self.name, self.model, Worker(self.model, asyncio.get_running_loop()))
        yield self.served

    def close(self) -> None:
        if self.served is not None:
            self.served.worker.close()
            self.served = None


@contextlib.contextmanager
def running(registry: OneModel, observers=(), store: Store | None = None, **limits: Any) -> Iterator[str]:
    """The address of a server in a thread of this process; `store` is closed with it."""
    app = create_app(registry, Limits(**limits), observers, store)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, http="httptools", lifespan="off", log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    while not server.started:
        pass
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        registry.close()
        listening.close()
        if store is not None:
            asyncio.run(store.close())


@contextlib.contextmanager
def administered(*models: Any, load: LoadOptions | None = None, **options: Any) -> Iterator[tuple[str, Registry]]:
    """The address of a server with the registry that `lacewing serve` has, and that registry."""
    found: list[Any] = []
    ready, leave = threading.Event(), threading.Event()
    given = ServerOptions(models=tuple(map(str, models)), load=load or LoadOptions(sequences=4), **options)

    async def serve() -> None:
        registry = Registry(Catalogue(given), given, Worker)
        server = uvicorn.Server(configure(create_app(registry, given), given))
        serving = asyncio.create_task(server.serve([bound]))
        found.extend((registry, asyncio.get_running_loop()))
        ready.set()
        try:
            await asyncio.to_thread(leave.wait)
        finally:
            closing = asyncio.create_task(registry.close())
            server.should_exit = True
            await serving
            await closing

    with socket.create_server(("127.0.0.1", 0)) as bound:
        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        ready.wait(10)
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}", found[0]
        finally:
            leave.set()
            thread.join()
