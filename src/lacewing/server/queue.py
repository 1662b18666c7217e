"""Who may run next: a limit of those that wait, and a fair order between those who ask."""

from __future__ import annotations

import asyncio
import math
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Hashable

from lacewing.errors import LacewingError


class QueueFullError(LacewingError):
    """More requests wait than may; the client is told when to ask again."""

    status, code = 429, "queue_full"

    def __init__(self, limit: int, retry_after: int):
        super().__init__(f"{limit} requests are waiting already, which is the limit; try again in {retry_after} s")
        self.retry_after = retry_after


class QueueTimeoutError(LacewingError):
    """A request waited too long for its turn."""

    status, code = 503, "queue_timeout"

    def __init__(self, seconds: float, retry_after: int):
        super().__init__(f"the request waited {seconds:g} s for its turn; the server is busy, try again in {retry_after} s")
        self.retry_after = retry_after


class Queue:
    """The places of one model: so many answers run at a time. Of the event loop's thread only.

    Those who ask (an API key, else a client's address) take turns: however many requests one has sent, the next place goes to
    another one who waits, first come first served among his own.
    """

    def __init__(self, places: int):
        self.places = places
        self.running = 0
        self._lines: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()  # whose turn it is first
        self._mean = 1.0  # seconds that an answer holds a place, a moving average

    @property
    def free(self) -> int:
        return 0 if self._lines else max(0, self.places - self.running)

    @property
    def waiting(self) -> int:
        return sum(map(len, self._lines.values()))

    @property
    def retry_after(self) -> int:
        """Whole seconds after which a place is likely."""
        return max(1, min(60, math.ceil(self._mean * (self.waiting + 1) / self.places)))

    async def enter(self, who: Hashable, seconds: float | None = None, ahead: bool = False) -> Place:
        """A place among those that run, which is to be left again. `ahead`: for a request that runs already, and so came before
        those of the same asker that wait. Raises QueueTimeoutError after so many seconds."""
        await self._enter(who, seconds, ahead)
        return Place(self)

    def leave(self, seconds: float) -> None:
        """Of a place that was held for so long."""
        self._mean += (seconds - self._mean) / 8
        self._free_place()

    async def _enter(self, who: Hashable, seconds: float | None, ahead: bool) -> None:
        if self.free:
            self.running += 1
            return
        turn = asyncio.get_running_loop().create_future()
        line = self._lines.setdefault(who, deque())
        line.insert(0 if ahead else len(line), turn)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as error:
            self._leave(who, turn)
            if isinstance(error, TimeoutError):
                raise QueueTimeoutError(seconds or 0, self.retry_after) from None
            raise

    def _leave(self, who: Hashable, turn: asyncio.Future[None]) -> None:
        """Whoever gave up waiting; a place that he got at the same moment goes to the next one."""
        if turn.done() and not turn.cancelled():
            return self._free_place()
        line = self._lines.get(who)
        if line is not None and turn in line:
            line.remove(turn)
            if not line:
                del self._lines[who]

    def _free_place(self) -> None:
        self.running -= 1
        while self._lines and self.running < self.places:
            who, line = next(iter(self._lines.items()))
            turn = line.popleft()
            if line:
                self._lines.move_to_end(who)
            else:
                del self._lines[who]
            if not turn.done():
                self.running += 1
                turn.set_result(None)


class Place:
    """That one answer runs."""

    def __init__(self, queue: Queue):
        self._queue: Queue | None = queue
        self._began = time.monotonic()

    def leave(self) -> None:
        """It is over; a second time does nothing."""
        queue, self._queue = self._queue, None
        if queue is not None:
            queue.leave(time.monotonic() - self._began)


class WaitingRoom:
    """All requests in the server that do not run yet. At most `limit` wait: for a model, for their prompt, for a place."""

    def __init__(self, limit: int = 64):
        self.limit = limit
        self.waiting = 0
        self._queues: weakref.WeakSet[Queue] = weakref.WeakSet()

    @property
    def running(self) -> int:
        """Answers, of all models."""
        return sum(queue.running for queue in self._queues)

    def know(self, queue: Queue) -> None:
        """Its places are among those that requests may hope for."""
        self._queues.add(queue)

    def enter(self) -> Visit:
        """A request, which waits until it leaves. Raises QueueFullError."""
        if self.waiting >= self.limit + sum(queue.free for queue in self._queues):
            raise QueueFullError(self.limit, min((queue.retry_after for queue in self._queues), default=1))
        return Visit(self)


class Visit:
    """That one request waits."""

    def __init__(self, room: WaitingRoom):
        self._room: WaitingRoom | None = room
        room.waiting += 1

    def leave(self) -> None:
        """It runs now, or has gone; a second time does nothing."""
        room, self._room = self._room, None
        if room is not None:
            room.waiting -= 1
