"""Wakes an event loop from another thread, with less work than asyncio: each run of an engine wakes it, every few milliseconds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable


class Bell:
    """`ring`, by any thread, has `answer` called soon in the thread of `loop`; several rings may be answered by one call.

    On Linux it is a counter of the kernel's: one write and one read take 11 us of CPU. asyncio writes to a pair of sockets and
    reads until an error says that nothing is left: 30 to 40. To be made in the loop's thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, answer: Callable[[], None]):
        self._loop, self._answer = loop, answer
        self._lock = threading.Lock()  # a file that is closed may be another one by the time it is written to
        self._counter = _counter(loop, self._heard)

    def ring(self) -> None:
        """Raises RuntimeError where the loop is closed and the system has no such counter."""
        with self._lock:
            if self._counter is not None:
                os.eventfd_write(self._counter, 1)
                return
        self._loop.call_soon_threadsafe(self._answer)

    def close(self) -> None:
        """By any thread; rings of before are still answered."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._leave)
            return
        self._drop()

    def _heard(self) -> None:
        if self._counter is not None:
            os.eventfd_read(self._counter)
        self._answer()

    def _leave(self) -> None:
        if self._counter is not None:
            self._loop.remove_reader(self._counter)
        self._drop()
        self._answer()

    def _drop(self) -> None:
        with self._lock:
            counter, self._counter = self._counter, None
        if counter is not None:
            os.close(counter)


def _counter(loop: asyncio.AbstractEventLoop, heard: Callable[[], None]) -> int | None:
    """A counter that the loop listens to; None where there is none."""
    if not hasattr(os, "eventfd"):
        return None
    counter = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        loop.add_reader(counter, heard)
    except BaseException:
        os.close(counter)
        raise
    return counter
