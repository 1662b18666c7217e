"""The database for the event loop, which never waits for a disk: a thread of its own does."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import psutil

from lacewing.paths import user_folder
from lacewing.server.options import ServerOptions
from lacewing.server.responses.database import Database, Stored
from lacewing.server.responses.resource import FAILED

Given = ParamSpec("Given")
TFound = TypeVar("TFound")


class Store:
    """Calls methods of `Database` in their order."""

    def __init__(self, path: Path, days: float, nbytes: int):
        self._database = Database(path, days, nbytes)
        self._thread = ThreadPoolExecutor(1, "responses")

    @classmethod
    def of(cls, options: ServerOptions) -> Store | None:
        """As a server is told to keep them; None: it keeps none. Nothing is made on disk before there is something to keep."""
        if not options.store:
            return None
        path = options.store_file or user_folder("data") / "responses.sqlite3"
        return cls(path, options.store_days, options.store_bytes)

    async def call(
        self, method: Callable[Concatenate[Database, Given], TFound], *given: Given.args, **named: Given.kwargs
    ) -> TFound:
        """What a method of the database returns. Raises StoreError."""
        work = functools.partial(method, self._database, *given, **named)
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def response(self, id: str) -> Stored | None:
        """One that is kept; if it was under way and its process is gone, it has failed."""
        found = await self.call(Database.response, id)
        if found is None or found.owner is None or _lives(found.owner):
            return found
        error = {"code": "server_error", "message": "the server that made this response has ended before it"}
        return found._replace(body={**found.body, "status": FAILED, "error": error}, owner=None)

    async def close(self) -> None:
        """What is being written is written."""
        await self.call(Database.close)
        self._thread.shutdown()


def owner() -> str:
    """This process, as others can look for it."""
    return f"{os.getpid()} {psutil.Process().create_time():.2f}"


def _lives(owner: str) -> bool:
    pid, _, began = owner.partition(" ")
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" == began
    except (psutil.Error, ValueError):
        return False
