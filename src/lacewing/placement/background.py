"""Long work: beside other work, and until a caller cancels it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from lacewing.errors import Cancelled
from lacewing.options import Progress

_GLANCE = 0.02  # seconds between two looks whether a caller who waits has cancelled
_T = TypeVar("_T")


def interruptible(progress: Progress | None, cancelled: Callable[[], bool] | None) -> Progress:
    """A `progress` that raises Cancelled when the caller wants the work to end."""

    def report(what: str, done: int, total: int) -> None:
        if cancelled is not None and cancelled():
            raise Cancelled(f"{what} was cancelled")
        if progress is not None:
            progress(what, done, total)

    return report


class Background(Generic[_T]):
    """Work begun in a thread of its own; `result` waits for it, and raises what it raised. Not `now`: begun by `result`."""

    def __init__(self, work: Callable[[], _T], now: bool = True):
        self._future: Future[_T] = Future()
        # Not a daemon: one that is inside native code when the interpreter ends would abort the process.
        self._thread = threading.Thread(target=self._run, args=(work,))
        self._lock = threading.Lock()
        if now:
            self._thread.start()

    def _run(self, work: Callable[[], _T]) -> None:
        try:
            self._future.set_result(work())
        except BaseException as error:
            self._future.set_exception(error)

    def result(self, cancelled: Callable[[], bool] | None = None) -> _T:
        """Raises Cancelled as soon as the caller wants to end; the work is then left to end by itself."""
        self._begin()
        while cancelled is not None and not self.wait(_GLANCE):
            if cancelled():
                raise Cancelled("opening was cancelled")
        return self._future.result()

    def wait(self, seconds: float | None = None) -> bool:
        """Until it is done, whatever came of it; False if that takes longer."""
        self._begin()
        try:
            self._future.exception(seconds)
        except TimeoutError:
            return self._future.done()
        return True

    def afterwards(self, work: Callable[[], object]) -> None:
        """Do something once it is done, in its thread; now, if it is already."""
        self._future.add_done_callback(lambda _: work())

    def _begin(self) -> None:
        with self._lock:
            if self._thread.ident is None:
                self._thread.start()
