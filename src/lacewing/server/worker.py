"""One thread that runs one model for all of its requests, and hands what comes to the event loop once a step."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from lacewing.assistant.reply import Assistant
from lacewing.errors import BackendError, Cancelled, LacewingError
from lacewing.server.queue import Queue

if TYPE_CHECKING:
    from lacewing.api import Model
    from lacewing.assistant.decoder import AnswerDecoder
    from lacewing.assistant.deltas import Delta
    from lacewing.engine.request import Request
    from lacewing.engine.stats import Stats
    from lacewing.engine.stream import Stream

_FAULTS = 3  # requests in a row that fail by no fault of their own, after which the model is said to be unusable


class End(NamedTuple):
    """How an answer ended: with a reason, or with an error."""

    reason: str | None
    stats: Stats | None
    error: Exception | None = None


class Sink(Protocol):
    """Takes what comes of one answer, in the event loop's thread."""

    def push(self, deltas: Sequence[Delta], end: End | None) -> None: ...


Moved = list[tuple[Sink, list[Any], "End | None"]]


class Ticket:
    """A request that the worker has. `cancel` returns at once; its end is delivered as any other."""

    def __init__(self, worker: Worker, request: Request, decoder: AnswerDecoder, sink: Sink, seconds: float | None):
        self.request, self.decoder, self.sink, self.seconds = request, decoder, sink, seconds
        self.stream: Stream | None = None
        self.until: float | None = None  # when `seconds` have passed since its first token
        self.cancelled = False
        self._worker = worker

    def cancel(self) -> None:
        """Nobody wants the rest."""
        self.cancelled = True
        self._worker.wake(self)


class Worker:
    """Runs the requests of one model; their sinks live in the event loop `loop`. Made in its thread.

    That thread never waits for the engine: requests and cancellations are noted, and found between two steps.
    `queue`: who may submit; `active`: requests that it has; `fault`: what made the model unusable.
    """

    def __init__(self, model: Model, loop: asyncio.AbstractEventLoop):
        self._engine, self._loop = model.engine, loop
        self.queue = Queue(model.engine.step.limits.rows)
        self._model = model
        self.active = 0
        self.fault: Exception | None = None
        self._changed = threading.Condition()
        self._new: list[Ticket] = []
        self._tickets: list[Ticket] = []  # that the engine has; of the thread alone
        self._closing = False
        self._failed = 0
        self._thread = threading.Thread(target=self._run, name="lacewing-worker", daemon=True)
        self._thread.start()

    @cached_property
    def assistant(self) -> Assistant:
        """For conversations. Raises TemplateError where the model has no template."""
        return Assistant(self._engine, self._model.tokenizer, self._model.template)

    def submit(self, request: Request, decoder: AnswerDecoder, sink: Sink, seconds: float | None = None) -> Ticket:
        """Run it with all the others. What is wrong with it comes as its end; so does "length" after so many seconds."""
        ticket = Ticket(self, request, decoder, sink, seconds)
        with self._changed:
            if self._closing:
                raise Cancelled("the model has been closed")
            self._new.append(ticket)
            self.active += 1
            self._changed.notify()
        return ticket

    def wake(self, ticket: Ticket) -> None:
        """It was cancelled: a run that carries nothing else is given up."""
        stream = ticket.stream
        if stream is not None:
            stream.abandon()
        with self._changed:
            self._changed.notify()

    def close(self) -> None:
        """End all requests and the thread; waits for it."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        for ticket in tuple(self._tickets):
            ticket.cancel()
        self._thread.join()

    # in its thread

    def _run(self) -> None:
        while self._wait():
            moved: Moved = []
            try:
                self._begin(moved)
                self._engine.advance()
                self._collect(moved)
            except Exception as error:  # of the engine itself: nobody knows what it holds now
                self.fault = error
                self._fail_all(error, moved)
            self._deliver(moved)
        moved = []
        self._fail_all(Cancelled("the model has been closed"), moved)
        self._deliver(moved)

    def _wait(self) -> bool:
        """Until there is something to do; False: nothing ever will be."""
        if self._tickets and not self._closing:
            return True
        with self._changed:
            while not (self._new or self._closing):
                self._changed.wait()
            return not self._closing

    def _begin(self, moved: Moved) -> None:
        """With requests that are new."""
        if not self._new:
            return
        with self._changed:
            new, self._new = self._new, []
        for ticket in new:
            if ticket.cancelled:
                moved.append((ticket.sink, [], End("cancelled", None)))
                continue
            try:
                ticket.stream = self._engine.submit(ticket.request)
            except LacewingError as error:
                moved.append((ticket.sink, [], End(None, None, error)))
                continue
            self._tickets.append(ticket)
            if ticket.cancelled:  # while the engine took it
                ticket.stream.abandon()

    def _collect(self, moved: Moved) -> None:
        """What the last step brought each of them."""
        over = False
        for ticket in self._tickets:
            stream = ticket.stream
            if stream is None:
                continue
            tokens = stream.take()
            if not tokens and not stream.done:
                continue
            try:
                deltas, end = _read(ticket, stream, tokens)
            except Exception as error:  # such as of a parser that chokes on a token: this request alone fails
                stream.close()
                deltas, end = [], End(None, stream.stats, error)
            if end is not None:
                ticket.stream, over = None, True
                self._judge(end)
            if deltas or end is not None:
                moved.append((ticket.sink, deltas, end))
        if over:
            self._tickets = [ticket for ticket in self._tickets if ticket.stream is not None]

    def _judge(self, end: End) -> None:
        """Requests that fail one after the other, as on a device that is lost, mean that the model is of no use."""
        theirs = end.error is None or (isinstance(end.error, LacewingError) and not isinstance(end.error, BackendError))
        self._failed = 0 if theirs else self._failed + 1
        if self._failed >= _FAULTS:
            self.fault = end.error

    def _fail_all(self, error: Exception, moved: Moved) -> None:
        with self._changed:
            new, self._new = self._new, []
        for ticket in (*self._tickets, *new):
            moved.append((ticket.sink, [], End(None, None, error)))
            if ticket.stream is not None:
                ticket.stream.abandon()
        self._tickets = []

    def _deliver(self, moved: Moved) -> None:
        """All of a step at once: the event loop is woken once."""
        if not moved:
            return
        with self._changed:
            self.active -= sum(end is not None for _, _, end in moved)
        try:
            self._loop.call_soon_threadsafe(_push, moved)
        except RuntimeError:
            return  # the loop is closed: nobody listens any more


def _read(ticket: Ticket, stream: Stream, tokens: list[Any]) -> tuple[list[Delta], End | None]:
    """Deltas of tokens, and the end if they, the time or the stream bring it. What comes behind the end is not told."""
    decoder = ticket.decoder
    deltas: list[Delta] = []
    for token in tokens:
        deltas += decoder.push(token)
        if decoder.ended is not None:
            stream.end(decoder.ended)
            break
    if decoder.ended is None and not stream.done:
        if not _late(ticket):
            return deltas, None
        stream.end("length")
    if stream.error is not None:
        return deltas, End(None, stream.stats, stream.error)
    deltas += decoder.finish(stream.finish_reason or "stop")
    return deltas, End(decoder.finish_reason, stream.stats)


def _late(ticket: Ticket) -> bool:
    """Whether its time is over."""
    if ticket.seconds is None:
        return False
    if ticket.until is None:
        ticket.until = time.monotonic() + ticket.seconds
    return time.monotonic() >= ticket.until


def _push(moved: Moved) -> None:
    for sink, deltas, end in moved:
        sink.push(deltas, end)
