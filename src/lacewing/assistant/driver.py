"""One thread that makes an engine go on for everybody who does not wait for tokens himself, as event loops do not."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from lacewing.errors import LacewingError, OptionError

if TYPE_CHECKING:
    import numpy as np

    from lacewing.engine.engine import Engine, Request
    from lacewing.engine.sampling import Token
    from lacewing.engine.stats import Stats
    from lacewing.engine.stream import Stream

OnTokens = Callable[[list["Token"]], None]
OnEnd = Callable[["str | None", "Exception | None"], None]

_IDLE = 2.0  # seconds without a request after which the thread ends; the next request begins another


class Handle:
    """A request that a driver runs. May be used by any thread, and never waits for a run."""

    def __init__(self, stream: Stream, on_tokens: OnTokens, on_end: OnEnd):
        self._stream, self.on_tokens, self.on_end = stream, on_tokens, on_end
        self._problem: Exception | None = None  # that its callback had
        self._over = False

    @property
    def stats(self) -> Stats:
        """They grow while it runs."""
        return self._stream.stats

    @property
    def begun(self) -> bool:
        """Whether it has a place in the engine; before, it waits for one."""
        return self._stream.begun

    @property
    def prompt(self) -> tuple[Token, ...]:
        """As `Stream.prompt`."""
        return self._stream.prompt

    @property
    def hidden(self) -> np.ndarray:
        """As `Stream.hidden`."""
        return self._stream.hidden

    def cancel(self) -> None:
        """Stop soon: between two runs, or within one that is for it alone. Tokens of before may still be delivered."""
        self._stream.abandon()

    def end(self, reason: str) -> None:
        """As `cancel`, because what was wanted is there, such as a stop string. `on_end` is told the reason."""
        self._stream.abandon(reason)


class Driver:
    """Runs requests on an engine in a thread of its own, which lives as long as there are any.

    `on_tokens` gets what a run of the engine brought, once a run; then `on_end` the reason, or None and an error. Both are called
    in the driver's thread between two runs, so they must be short; what `on_tokens` raises cancels its request, and is its error.
    A request that is ended within its `on_tokens` takes no part in the next run. `delivered` is called when all that a run brought
    has been told. Others may use the engine at the same time.
    """

    def __init__(self, engine: Engine, delivered: Callable[[], None] = lambda: None):
        self.engine = engine
        self._delivered = delivered
        self._fresh: deque[Handle] = deque()
        self._live: list[Handle] = []
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    def submit(self, request: Request, on_tokens: OnTokens, on_end: OnEnd) -> Handle:
        """Run it from now on. Raises as `Engine.generate`, and OptionError when the driver is closed."""
        with self._wake:
            if self._closing:
                raise OptionError("the model has been closed")
            handle = Handle(self.engine.submit(request), on_tokens, on_end)
            self._fresh.append(handle)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="lacewing-driver", daemon=True)
                self._thread.start()
            self._wake.notify()
        return handle

    @property
    def count(self) -> int:
        """Requests that have not ended."""
        return len(self._live) + len(self._fresh)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Between two runs, with nothing under way on the device: for work on the step or its weights."""
        with self.engine.exclusive():
            yield

    def close(self) -> None:
        """Cancel all requests, tell those who wait, and end the thread. Before the engine is closed."""
        with self._wake:
            self._closing = True
            thread = self._thread
            for handle in (*self._live, *self._fresh):
                handle.cancel()
            self._wake.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _work(self) -> None:
        while self._live or self._await():
            try:
                self.engine.advance()
            except Exception as error:  # of no request in particular
                self._fail(error)
            self._deliver()

    def _await(self) -> bool:
        """Until there is something to run; False when the thread is to end."""
        with self._wake:
            self._welcome()
            if not self._live and not self._closing:
                self._wake.wait_for(lambda: self._fresh or self._closing, _IDLE)
                self._welcome()
            if not self._live:
                self._thread = None
            return bool(self._live)

    def _welcome(self) -> None:
        with self._wake:  # `close` finds each of them in one place or the other
            while self._fresh:
                self._live.append(self._fresh.popleft())

    def _deliver(self) -> None:
        """What the run has brought, to everybody."""
        if self._fresh:
            self._welcome()  # those that came before the run and after it was awaited
        over = False
        for handle in self._live:
            stream = handle._stream
            task = stream.task
            if task.tokens:
                tokens = stream.take()
                if handle._problem is None:
                    try:
                        handle.on_tokens(tokens)
                    except Exception as problem:  # such as of an event loop that was closed
                        handle._problem = problem
                        handle.cancel()
                    if task.abandoned:
                        stream.settle()
            if task.done and stream.done:
                handle._over = over = True
                error = handle._problem or stream.error
                self._tell(handle, None if error else stream.finish_reason, error)
        if over:
            self._live = [handle for handle in self._live if not handle._over]
        self._delivered()

    def _fail(self, error: Exception) -> None:
        for handle in self._live:
            handle.cancel()
            self._tell(handle, None, error)
        self._live = []

    @staticmethod
    def _tell(handle: Handle, reason: str | None, error: Exception | None) -> None:
        with contextlib.suppress(LacewingError, RuntimeError):  # nobody is there any more to be told
            handle.on_end(reason, error)
