"""Runs one model for all of its requests, and hands what comes to the event loop once a run of the engine."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

from lacewing.assistant.driver import Driver, Handle
from lacewing.assistant.reply import Assistant
from lacewing.errors import BackendError, Cancelled, DeviceLostError, LacewingError
from lacewing.server.bell import Bell
from lacewing.server.queue import Queue

if TYPE_CHECKING:
    from lacewing.api import Model
    from lacewing.assistant.decoder import AnswerDecoder
    from lacewing.assistant.deltas import Delta
    from lacewing.engine.request import Request
    from lacewing.engine.sampling import Token
    from lacewing.engine.stats import Stats
    from lacewing.text.template import ChatTemplate

_log = logging.getLogger("lacewing.server")
_FAULTS = 3  # requests in a row that fail by no fault of their own, after which the model is said to be unusable


class End(NamedTuple):
    """How an answer ended: with a reason, or with an error."""

    reason: str | None
    stats: Stats | None
    error: Exception | None = None


class Sink(Protocol):
    """Takes what comes of one answer, in the event loop's thread."""

    def push(self, deltas: Sequence[Delta], end: End | None) -> None: ...


Move = tuple[Sink, Sequence["Delta"], End | None]


class Ticket:
    """A request that runs; it is decoded in the driver's thread. `seconds`: that it may take after its first token."""

    def __init__(self, worker: Worker, decoder: AnswerDecoder, sink: Sink, seconds: float | None):
        self._worker, self._decoder, self._sink, self._seconds = worker, decoder, sink, seconds
        self._handle: Handle | None = None
        self._lock = threading.Lock()
        self._until: float | None = None
        self._cancelled = False

    def submit(self, driver: Driver, request: Request) -> None:
        """Raises as `Driver.submit`."""
        with self._lock:  # what comes meanwhile waits for the handle
            self._handle = driver.submit(request, self._on_tokens, self._on_end)

    @property
    def handle(self) -> Handle:
        with self._lock:
            if self._handle is None:
                raise RuntimeError("the request was not submitted")
            return self._handle

    @property
    def begun(self) -> bool:
        """Whether it has a place in the engine."""
        return self._handle is not None and self._handle.begun

    def cancel(self) -> None:
        """Nobody wants the rest. Returns at once; the end is delivered as any other."""
        self._cancelled = True
        self.handle.cancel()

    def _on_tokens(self, tokens: list[Token]) -> None:
        decoder = self._decoder
        deltas = decoder.push(tokens[0])  # one, nearly always
        for token in tokens[1:]:
            deltas += decoder.push(token)
        if decoder.ended is not None:
            self.handle.end(decoder.ended)
        elif self._seconds is not None:
            self._until = self._until or time.monotonic() + self._seconds
            if time.monotonic() >= self._until:
                self.handle.end("length")
        if deltas:
            self._worker.moved.append((self._sink, deltas, None))

    def _on_end(self, reason: str | None, error: Exception | None) -> None:
        deltas: Sequence[Delta] = ()
        if reason == "cancelled" and error is None and not self._cancelled:
            error = Cancelled("the answer was cut because its model has been closed; ask again")
        if error is None:
            deltas = self._decoder.finish(reason or "stop")
            reason = self._decoder.finish_reason
        self._worker.tickets.remove(self)
        self._worker.judge(error)
        self._worker.moved.append((self._sink, deltas, End(reason, self.handle.stats, error)))


class Worker:
    """Runs the requests of one model; their sinks live in the event loop `loop`, whose thread never waits for the engine.

    `queue`: who may submit; `tickets`: what it runs, in the order of arrival; `fault`: what made the model unusable; `moved`: what
    the run has brought, of the driver's thread.
    """

    def __init__(self, model: Model, loop: asyncio.AbstractEventLoop):
        self._model = model
        self._bell, self._brought = Bell(loop, self._tell), deque[Move]()
        self._driver = Driver(model.engine, self._deliver)
        self.queue = Queue(model.engine.step.limits.rows)
        self.tickets: list[Ticket] = []
        self.fault: Exception | None = None
        self.moved: list[Move] = []
        self._failed = self._faults = 0

    @property
    def active(self) -> int:
        """Requests that it has."""
        return self._driver.count

    @cached_property
    def assistant(self) -> Assistant:
        """For conversations. Raises TemplateError where the model has no template."""
        return Assistant(self._model.engine, self._model.tokenizer, self._model.template)

    def use_template(self, template: ChatTemplate) -> None:
        """For conversations from now on; answers under way keep theirs."""
        self.assistant = Assistant(self._model.engine, self._model.tokenizer, template)

    def submit(self, request: Request, decoder: AnswerDecoder, sink: Sink, seconds: float | None = None) -> Ticket:
        """Run it with all the others; it ends with "length" so many seconds after its first token. Raises as `Driver.submit`."""
        ticket = Ticket(self, decoder, sink, seconds)
        self.tickets.append(ticket)
        try:
            ticket.submit(self._driver, request)
        except BaseException:
            self.tickets.remove(ticket)
            raise
        return ticket

    def close(self) -> None:
        """End all requests; waits until they have."""
        self._driver.close()
        self._bell.close()

    # in the driver's thread

    def judge(self, error: Exception | None) -> None:
        """A device that is lost, or requests that fail one after the other, mean that the model is of no use."""
        theirs = error is None or (isinstance(error, LacewingError) and not isinstance(error, BackendError))
        self._failed = 0 if theirs else self._failed + 1
        if self._failed >= _FAULTS or isinstance(error, DeviceLostError):
            self.fault = error

    def _deliver(self) -> None:
        """All of a run at once: the event loop is woken once."""
        scheduler = self._driver.engine.scheduler
        if scheduler.counters.faults != self._faults:
            self._faults = scheduler.counters.faults
            problem = repr(scheduler.last_fault)
            _log.warning("a run failed; its sequences run one by one to find the cause", extra={"problem": problem})
        moved = self.moved
        if not moved:
            return
        self.moved = []
        self._brought.extend(moved)
        try:
            self._bell.ring()
        except RuntimeError:  # the loop is closed: nobody listens any more
            return

    # in the event loop's thread

    def _tell(self) -> None:
        """What runs have brought, to everybody."""
        try:
            while self._brought:
                sink, deltas, end = self._brought.popleft()
                sink.push(deltas, end)
        finally:
            if self._brought:  # a fault of ours with one does not keep what came for others
                self._bell.ring()
