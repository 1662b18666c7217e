"""A thread that asks, while a run is under way, whether one of those who wait for it has cancelled."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence

_EVERY = 0.05  # seconds
_IDLE = 20  # questions without a run, after which the thread ends; the next run begins another


class Watcher:
    """Calls `abort` as soon as one of the callables of the run under way says yes, or fails; whoever made the run asks again."""

    def __init__(self, abort: Callable[[], None]):
        self._abort = weakref.WeakMethod(abort)  # the thread may live a second longer than the step
        self._asked: Sequence[Callable[[], bool]] = ()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def begin(self, asked: Sequence[Callable[[], bool]]) -> None:
        self._asked = asked
        if asked and self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._watch, name="lacewing-cancel", daemon=True)
                    self._thread.start()

    def end(self) -> None:
        """Afterwards `abort` is not called, which would end somebody else's run."""
        if self._asked:
            with self._lock:
                self._asked = ()

    def _call_abort(self, asked: Sequence[Callable[[], bool]]) -> None:
        abort = self._abort()
        with self._lock:
            if abort is not None and self._asked is asked:
                abort()

    def _watch(self) -> None:
        idle = 0
        while True:
            time.sleep(_EVERY)
            asked = self._asked
            idle = 0 if asked else idle + 1
            if any(map(_says_yes, asked)):
                self._call_abort(asked)
            if idle > _IDLE:
                with self._lock:
                    if not self._asked:
                        self._thread = None
                        return


def _says_yes(cancelled: Callable[[], bool]) -> bool:
    try:
        return cancelled()
    except Exception:
        return True
