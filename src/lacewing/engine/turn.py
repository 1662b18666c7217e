"""Whose turn it is: one thread at a time works on an engine, and whoever asks gets it before the one that has just had it."""

from __future__ import annotations

import threading
from types import TracebackType


class Turn:
    """A lock that the thread which holds it may take again, and that is fair.

    A plain lock goes back to a thread that lets go and asks again at once, as one that reads a long prompt does run after run;
    all others would wait until its prompt is read.
    """

    def __init__(self) -> None:
        # An RLock: if Ctrl-C comes between taking it and noting whose it is, this thread can still take it again and go on.
        self._lock, self._next = threading.RLock(), threading.Lock()  # `_next`: held by the one that gets the lock then
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        me = threading.get_ident()
        if self._owner == me:
            self._lock.acquire()
        else:
            with self._next:
                self._lock.acquire()
                self._owner = me
        self._depth += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
        self._lock.release()
