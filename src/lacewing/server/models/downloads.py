"""Models that are fetched while the server runs: by names of ours alone, each once at a time, and served afterwards."""

from __future__ import annotations

import asyncio
import logging

from lacewing import hub
from lacewing.errors import LacewingError
from lacewing.options import Progress, did_you_mean
from lacewing.placement.background import interruptible
from lacewing.server.errors import UnknownModelError
from lacewing.server.models import loading
from lacewing.server.models.names import Catalogue
from lacewing.server.models.news import EVERY, News

_log = logging.getLogger("lacewing.server")


class Downloads:
    """Of the event loop's thread only."""

    def __init__(self, catalogue: Catalogue, news: News):
        self._catalogue, self._news = catalogue, news
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._listeners: dict[str, list[Progress]] = {}
        self._ending = False

    def start(self, name: str) -> asyncio.Task[None]:
        """The task of it; one that is under way already is that one. Raises UnknownModelError for what is no name of ours."""
        if name not in hub.NAMED:
            hint = did_you_mean(name[:100], hub.NAMED) or f"there are {', '.join(hub.NAMED)}"
            message = f"{name[:100]!r} cannot be fetched by this server, which knows models by its own names: {hint}"
            raise UnknownModelError(f"{message} (`lacewing pull` on its machine takes any address)")
        task = self._tasks.get(name)
        if task is None:
            task = self._tasks[name] = asyncio.create_task(self._fetch(name))
            task.add_done_callback(lambda done: self._over(name, done))
        return task

    async def follow(self, name: str, progress: Progress) -> None:
        """As `start`, until it is here. Raises LacewingError. Who is cancelled does not end it."""
        task = self.start(name)
        listeners = self._listeners.setdefault(name, [])
        listeners.append(progress)
        try:
            await asyncio.shield(task)
        finally:
            listeners.remove(progress)

    async def _fetch(self, name: str) -> None:
        def report(what: str, done: int, total: int) -> None:
            self._news.tell(name, "download_progress", {what: {"done": done, "total": total}})
            for each in list(self._listeners.get(name, ())):
                each(what, done, total)

        tell = interruptible(loading.relay(asyncio.get_running_loop(), report), lambda: self._ending)
        try:
            await loading.in_thread(lambda: hub.path_of(name, tell))
            self._catalogue.add(name)
        except Exception as error:
            message = (
                str(error) if isinstance(error, LacewingError) else "an internal error occurred; the server's log has the details"
            )
            _log.error("model could not be fetched", extra={"model": name, "problem": str(error) or type(error).__name__})
            self._news.tell(name, "download_failed", {"message": message})
            raise
        _log.info("model fetched", extra={"model": name})
        self._news.tell(name, "download_finished")
        self._news.tell(EVERY, "models_reload")

    def _over(self, name: str, task: asyncio.Task[None]) -> None:
        del self._tasks[name]
        if not task.cancelled():
            task.exception()  # told above, and there may be nobody who waits

    async def close(self) -> None:
        """What is under way gives up; what has come so far is kept for the next try."""
        self._ending = True
        if self._tasks:
            await asyncio.wait(set(self._tasks.values()))
