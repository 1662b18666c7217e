"""Servers for tests: a registry with one model, and uvicorn in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import uvicorn

from lacewing.api import Model
from lacewing.errors import LacewingError
from lacewing.server.app import create_app
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


class Entry(NamedTuple):
    name: str
    created: int
    status: str


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

    def names(self) -> list[Entry]:
        return [Entry(self.name, 1, "loaded")]

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
def running(registry: OneModel, observers=(), **limits: Any) -> Iterator[str]:
    """The address of a server in a thread of this process."""
    app = create_app(registry, Limits(**limits), observers)
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
