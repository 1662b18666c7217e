"""Threads that read. They are daemons: a program that ends does not wait for a disk that hangs, as it would for those of
`ThreadPoolExecutor`."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue

_Job = tuple[Future[None], Callable[[], None]]


class Readers:
    """So many threads, which begin with the first job and end with `close`, or when nobody has them any more."""

    def __init__(self, threads: int, name: str):
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock, self._closed = threading.Lock(), False
        self._names = [f"{name}-{number}" for number in range(threads)]
        self._threads: list[threading.Thread] = []
        self._finalizer = weakref.finalize(self, _end, self._jobs, threads)

    def submit(self, job: Callable[[], None]) -> Future[None]:
        """Have a job done; its result raises what the job raised."""
        future: Future[None] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("reads were asked for after their end")
            if not self._threads:
                self._threads = [threading.Thread(target=_work, args=(self._jobs,), name=each, daemon=True) for each in self._names]
                for thread in self._threads:
                    thread.start()
            self._jobs.put((future, job))
        return future

    def close(self, patience: float) -> None:
        """No job begins any more, and those that wait are cancelled. Those under way are waited for so many seconds."""
        with self._lock:
            self._closed = True
            with contextlib.suppress(Empty):
                while True:
                    if (job := self._jobs.get_nowait()) is not None:
                        job[0].cancel()
            self._finalizer()
        until = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))


def _end(jobs: SimpleQueue[_Job | None], threads: int) -> None:
    for _ in range(threads):
        jobs.put(None)


def _work(jobs: SimpleQueue[_Job | None]) -> None:
    while (found := jobs.get()) is not None:
        future, job = found
        if future.set_running_or_notify_cancel():
            try:
                job()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(None)
        del found, future, job  # what they hold may be large, and the next one may come late
