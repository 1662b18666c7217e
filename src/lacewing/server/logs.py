"""Logs: a line an event, as text for people or as JSON for programs, without prompts and without control characters.

Whatever comes from a request is a value of a field, in which everything that does not print is escaped, so that it can neither
begin a line of its own nor turn what a terminal shows.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any, TextIO

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lacewing.server.events import Observer, Record
from lacewing.server.metrics import PATH
from lacewing.server.security.keys import OPEN
from lacewing.server.security.refuse import header

NAME = "lacewing.server"
_LIBRARY = "uvicorn.error"
_log = logging.getLogger(NAME)
_PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_WATCHED = OPEN | {PATH}  # by machines; that a server still loads (503) is what they ask for
# Asked again and again by programs, such as `chat --server` and the page while a model is being loaded.
_POLLED = {"/v1/models", "/models", "/models/activity", "/models/experts", "/props", "/slots"}
_LONGEST = 2000  # characters of a value


def escaped(value: object) -> str:
    """A value on one line: what does not print is written as an escape."""
    text = str(value)
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}..."
    return "".join(each if each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode() for each in text)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What was logged beside the message, in its order."""
    return {name: value for name, value in vars(record).items() if name not in _PLAIN and value is not None}


class TextFormatter(logging.Formatter):
    """`2026-11-29T02:55:10.123Z INFO message key=value key="two words"`; a traceback follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        words = [_time(record), record.levelname, escaped(record.getMessage())]
        words += [f"{name}={_word(value)}" for name, value in fields_of(record).items()]
        line = " ".join(words)
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            line += "".join(f"\n    {escaped(each)}" for each in trace.splitlines())
        return line


class JsonFormatter(logging.Formatter):
    """One object a line, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        found = {"time": _time(record), "level": record.levelname.lower(), "message": record.getMessage(), **fields_of(record)}
        if record.exc_info:
            found["traceback"] = self.formatException(record.exc_info)
        return json.dumps(found, default=str).replace("\x7f", "\\u007f")


def _time(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _word(value: object) -> str:
    text = escaped(value)
    return text if text and not re.search(r'[\s"=\\]', text) else json.dumps(text, ensure_ascii=False)


def _is_a_fault(record: logging.LogRecord) -> bool:
    """uvicorn logs requests that were cancelled because the server ends."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def configure(form: str, level: int = logging.INFO, stream: TextIO | None = None) -> Callable[[], None]:
    """Log to `stream`, by default standard error. Call what is returned to undo it."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    handler.addFilter(_is_a_fault)
    loggers = {NAME: level, _LIBRARY: max(level, logging.WARNING)}  # uvicorn tells of its start and end, as we do
    before = {}
    for name, each in loggers.items():
        logger = logging.getLogger(name)
        before[name] = logger.level, logger.propagate
        logger.setLevel(each)
        logger.propagate = False
        logger.addHandler(handler)

    def undo() -> None:
        for name, (level, propagate) in before.items():
            logger = logging.getLogger(name)
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate

    return undo


class Requests(Observer):
    """The outermost ASGI application: an id for each request, and a line when it is over; as an observer, what answers cost.

    The id is the client's own (X-Request-Id) where it has a plain form, and goes back with the response. `told` gets each status.
    """

    def __init__(self, told: Callable[[int], None] = lambda status: None):
        self._told = told
        self._costs: dict[str, dict[str, Any]] = {}

    def around(self, app: ASGIApp) -> ASGIApp:
        """The application that logs what `app` answers."""

        async def logged(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await self._answer(app, scope, receive, send)
            else:
                await app(scope, receive, send)

        return logged

    def finished(self, record: Record) -> None:
        cost = {
            "model": record.model or None,
            "streamed": record.streamed,
            "prompt_tokens": record.prompt_tokens,
            "cached_tokens": record.cached_tokens,
            "generated_tokens": record.generated_tokens,
            "queue_seconds": _since(record, record.started),
            "first_token_seconds": _since(record, record.first_token),
            "finish": ",".join(record.finish_reasons) or None,
            "error": record.error if isinstance(record.error, Exception) else None,
        }
        if record.status == 499:
            cost["finish"] = "disconnected"
        if record.id in self._costs:
            self._costs[record.id] = cost

    async def _answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        name = _name(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = name
        began, status = time.perf_counter(), 0
        self._costs.setdefault(name, {})  # two requests may bring the same id

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                ids = [(b"x-request-id", name.encode()), (b"request-id", name.encode())]  # the second is Anthropic's
                message = {**message, "headers": [*message.get("headers", ()), *ids]}
            await send(message)

        try:
            await app(scope, receive, with_id)
        finally:
            self._told(status or 499)
            cost = self._costs.pop(name, {})
            polled = scope["path"] in _POLLED or scope["path"].startswith("/models/changes/")
            quiet = polled and scope["method"] in ("GET", "HEAD") and 0 < status < 400
            quiet |= scope["path"] in _WATCHED
            level = logging.DEBUG if quiet else logging.WARNING if status >= 500 else logging.INFO
            if _log.isEnabledFor(level):
                client = scope.get("client")
                facts = {
                    "request": name,
                    "client": client[0] if client else None,
                    "key": state.get("key"),
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status or 499,
                    "seconds": round(time.perf_counter() - began, 4),
                }
                _log.log(level, "request", extra=facts | cost)


def _name(scope: Scope) -> str:
    given = header(scope, b"x-request-id")
    return given.decode() if given is not None and _ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"


def _since(record: Record, moment: float | None) -> float | None:
    return None if moment is None else round(moment - record.began, 4)
