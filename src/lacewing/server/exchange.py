"""One request for answers, from its arrival to its last byte; ended at once if the client leaves."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from starlette.responses import Response

from lacewing.errors import LacewingError
from lacewing.server.answers import Answers, Job, check_length
from lacewing.server.context import Context, Served
from lacewing.server.events import Record
from lacewing.server.openai import errors
from lacewing.server.openai.bodies import ModelBody
from lacewing.server.sse import DIRECT, Direct, EventStream, Receive, Send, SlowReaderError, unless_gone

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from lacewing.assistant.deltas import Delta
    from lacewing.server.feed import Choice
    from lacewing.server.queue import Visit

log = logging.getLogger("lacewing.server")
TBody = TypeVar("TBody", bound=ModelBody)


class RequestTimeoutError(LacewingError):
    """A request took longer than the server allows."""

    status, code = 504, "request_timeout"


class Format(ABC):
    """How answers are written: as events of a stream, or as one object. Bytes are JSON in UTF-8."""

    def first_event(self) -> bytes:
        """What is told once the request's turn has come; often nothing."""
        return b""

    @abstractmethod
    def events(self, choice: Choice, deltas: Sequence[Delta]) -> bytes:
        """For what came of a choice, its end included if it has ended."""

    @abstractmethod
    def last_event(self, choices: Sequence[Choice]) -> bytes:
        """What all of it cost, where the client wants to know; else nothing."""

    @abstractmethod
    def whole(self, choices: Sequence[Choice]) -> bytes:
        """The answer to a request that is not streamed."""


class WholeFormat(Format):
    """Answers that are never streamed."""

    def events(self, choice: Choice, deltas: Sequence[Delta]) -> bytes:
        return b""

    def last_event(self, choices: Sequence[Choice]) -> bytes:
        return b""


class Exchange(ABC, Generic[TBody]):
    """An ASGI application for one request. `who`: whose requests share a turn in the queue."""

    prompt_field = "messages"
    dialect = errors.DIALECT

    def __init__(self, context: Context, body: TBody, record: Record, who: Hashable):
        self.context, self.body, self.record, self.who = context, body, record, who
        record.streamed = self.streamed
        self._direct: Direct | None = None

    @property
    def streamed(self) -> bool:
        """Whether the answer is written as it comes."""
        return self.body.streamed

    @abstractmethod
    def jobs(self, served: Served) -> list[Job]:
        """What is asked of the engine, in a thread other than the event loop's. Raises LacewingError."""

    @abstractmethod
    def format(self, served: Served, answers: Answers) -> Format: ...

    async def finish(self, answers: Answers) -> None:
        """Once all answers have ended, before the client is told so."""

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answers, unless the client leaves before it is done."""
        self._direct = scope.get("extensions", {}).get(DIRECT)
        await unless_gone(self._answer(send), receive)

    async def _answer(self, send: Send) -> None:
        record, limits = self.record, self.context.limits
        events = self._stream(send) if self.streamed else None
        try:
            visit = self.context.room.enter()
            try:
                self.context.observers.received(record)
                async with asyncio.timeout(limits.request_seconds):
                    await self._serve(visit, events, send)
            except TimeoutError:
                raise RequestTimeoutError(f"the answer took longer than {limits.request_seconds} s") from None
            finally:
                visit.leave()
        except asyncio.CancelledError as error:
            record.error, record.status = error, 499
            raise
        except Exception as error:
            await self._tell(error, events, send)
        finally:
            if events is not None:
                events.close()
            self.context.observers.finished(record)

    def _stream(self, send: Send) -> EventStream:
        dialect, limits = self.dialect, self.context.limits
        ping = limits.ping_seconds if dialect.pings else None
        return EventStream(send, ping, limits.write_seconds, dialect.content_type, dialect.ping, self._direct)

    async def _tell(self, error: Exception, events: EventStream | None, send: Send) -> None:
        """The client, what went wrong."""
        self.record.error, self.record.status = error, errors.status_of(error)
        if not isinstance(error, LacewingError):
            log.error("request %s failed", self.record.id, exc_info=error)
        if isinstance(error, SlowReaderError):
            return  # the response stays unfinished, so that the connection is closed
        if events is not None and events.started:
            return await events.end(self.dialect.event(error))
        if events is not None:
            events.close()
        await self.dialect.response(error)({"type": "http"}, _nothing, send)

    async def _serve(self, visit: Visit, events: EventStream | None, send: Send) -> None:
        context, record = self.context, self.record
        async with context.registry.use(self.body.model, None if events is None else events.note) as served:
            record.model, record.loaded = served.name, time.perf_counter()
            context.room.know(served.worker.queue)
            jobs = await asyncio.to_thread(self.jobs, served)
            for job in jobs:
                check_length(job.prompt, served.model.spec.context, self.prompt_field)
            patience = context.limits.queue_seconds
            answers = Answers(served, jobs, self.who, patience, context.observers, record, whole=events is None)
            try:
                await answers.begin()
                visit.leave()
                context.observers.started(record)
                form = self.format(served, answers)
                if events is None:
                    await self._write_whole(answers, form, send)
                else:
                    await self._write_events(answers, form, events)
            finally:
                answers.close()
                self._count(answers)

    async def _write_events(self, answers: Answers, form: Format, events: EventStream) -> None:
        first = form.first_event()
        if first:
            await events.write(first)

        def at_once(choice: Choice) -> bool:
            direct = events.direct
            if direct is None or not direct.flows:
                return False
            data = form.events(choice, choice.take())
            if data:
                direct.write(data)
                events.written = time.monotonic()
            return True

        left = len(answers.choices)
        while left:
            data = b""
            for choice in await answers.next(at_once):
                if choice.end is not None:
                    if choice.end.error is not None:
                        if data:
                            await events.write(data)
                        raise choice.end.error
                    left -= 1
                data += form.events(choice, choice.take())
            if not left:
                await self.finish(answers)
                data += form.last_event(answers.choices) + self.dialect.end
                return await events.end(data)
            if data:
                await events.write(data)

    async def _write_whole(self, answers: Answers, form: Format, send: Send) -> None:
        left = len(answers.choices)
        while left:
            for choice in await answers.next():
                if choice.end is not None:
                    if choice.end.error is not None:
                        raise choice.end.error
                    left -= 1
        await self.finish(answers)
        response = Response(form.whole(answers.choices), media_type="application/json")
        await response({"type": "http"}, _nothing, send)

    def _count(self, answers: Answers) -> None:
        """What it cost, for those who watch."""
        record = self.record
        for choice in answers.choices:
            if choice.end is not None:
                record.finish_reasons.append(choice.end.reason or "error")
            elif choice.ticket is not None:
                record.finish_reasons.append("cancelled")
            stats = choice.stats
            if stats is not None:
                record.prompt_tokens += stats.prompt_tokens
                record.cached_tokens += stats.reused_tokens
                record.generated_tokens += stats.generated_tokens


async def _nothing() -> MutableMapping[str, Any]:
    """What a response without a request receives."""
    return {"type": "http.disconnect"}
