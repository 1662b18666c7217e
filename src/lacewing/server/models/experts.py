"""What experts of a mixture get, counted for as long as somebody looks."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lacewing.engine.loads import ExpertLoads
from lacewing.errors import LacewingError
from lacewing.server.models.loading import in_thread

if TYPE_CHECKING:
    from lacewing.server.models.served import Served

_LEASE = 30.0  # seconds after the last question for which experts are counted


@dataclass
class Watched:
    """A model whose experts are counted; `since`: seconds since 1970."""

    served: Served
    loads: ExpertLoads
    since: int
    timer: asyncio.TimerHandle | None = None


class ExpertWatch:
    """Counts what experts get for as long as somebody asks: a device that tells it chooses tokens no longer ahead of the host."""

    def __init__(self) -> None:
        self._watched: dict[str, Watched] = {}
        self._tasks: set[asyncio.Future[None]] = set()

    async def counts(self, served: Served) -> Watched:
        """Of a mixture in memory, since the first question."""
        found = self._watched.get(served.name)
        if found is None or found.served is not served:
            found = Watched(served, ExpertLoads(), int(time.time()))
            self._watched[served.name] = found
            await in_thread(lambda: served.model.engine.observe(found.loads))
        if found.timer is not None:
            found.timer.cancel()
        found.timer = asyncio.get_running_loop().call_later(_LEASE, self._end, found)
        return found

    def _end(self, watched: Watched) -> None:
        if self._watched.get(watched.served.name) is watched:
            del self._watched[watched.served.name]

        task = asyncio.ensure_future(in_thread(lambda: _forget(watched)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _forget(watched: Watched) -> None:
    """A model that is being closed meanwhile needs not be told."""
    with contextlib.suppress(LacewingError):
        watched.served.model.engine.unobserve(watched.loads)
