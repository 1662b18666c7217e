"""What happens to models, for those who watch: loading, changes, downloads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

EVERY = "*"  # the name where an event is about no model in particular
_MOST = 1024  # events that a watcher who does not read is given


class Event(NamedTuple):
    """As llama-server's router names them: "model_status", "download_progress" and so on."""

    model: str
    event: str
    data: dict[str, Any] | None = None


class News:
    """Of one server; of the event loop's thread only."""

    def __init__(self) -> None:
        self._watchers: set[asyncio.Queue[Event | None]] = set()
        self._over = False

    def tell(self, model: str, event: str, data: dict[str, Any] | None = None) -> None:
        """To all who watch. One who has not read for long gets None at last, and nothing more."""
        for each in list(self._watchers):
            if each.qsize() < _MOST:
                each.put_nowait(Event(model, event, data))
            else:
                each.put_nowait(None)
                self._watchers.discard(each)

    @contextlib.contextmanager
    def watch(self) -> Iterator[asyncio.Queue[Event | None]]:
        """Events from now on; None: there are no more."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        if self._over:
            queue.put_nowait(None)
        self._watchers.add(queue)
        try:
            yield queue
        finally:
            self._watchers.discard(queue)

    def end(self) -> None:
        """Nothing more will happen."""
        self._over = True
        for each in self._watchers:
            each.put_nowait(None)
        self._watchers.clear()
