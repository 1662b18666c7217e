"""Changes of models, and what came of each: answered when they are done, at once, or, as RFC 7240 has it, by an id.

`Prefer: respond-async, wait=2` is of use behind a proxy that gives up a request in which nothing comes for long.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse

from lacewing.errors import LacewingError
from lacewing.server.admin.entries import described, status
from lacewing.server.context import Change, Context, context_of
from lacewing.server.openai.errors import RequestError
from lacewing.server.openai.types import new_id
from lacewing.server.queue import QueueFullError

KEPT = 64  # changes that are over and can still be asked for
MOST = 64  # changes under way; more loads are refused, an unload, which ends them, never
LONGEST_WAIT = 60.0  # seconds
RETRY_AFTER = 5  # seconds
ASYNC = "respond-async"
_WAIT = re.compile(r'wait\s*=\s*"?([0-9]{1,6})"?\Z', re.IGNORECASE)
_log = logging.getLogger("lacewing.server")


def begin(context: Context, name: str | None, work: Callable[[], Awaitable[list[str]]], most: int | None = None) -> str:
    """Have it done, whoever leaves; its id. `work` gives what has changed, in words of the API. Raises UnknownModelError, and
    QueueFullError if `most` others are under way."""
    model = context.registry.entry(name).name
    if most is not None and sum(not change.task.done() for change in context.changes.values()) >= most:
        raise QueueFullError(most, RETRY_AFTER)
    id, changes = new_id("change_"), context.changes
    changes[id] = Change(model, asyncio.ensure_future(_told(context, model, work())))
    for each in [id for id, change in changes.items() if change.task.done()][:-KEPT]:
        del changes[each]
    return id


async def outcome(request: Request, id: str) -> JSONResponse:
    """What came of a change: once it is over, or, as the client prefers it, 202 with its progress."""
    context = context_of(request.app)
    change = context.changes[id]
    seconds = preferred(request)
    await asyncio.wait({change.task}, timeout=seconds)  # it goes on, whoever leaves
    registry = context.registry
    if not change.task.done():
        headers = {"Location": f"/models/changes/{id}"} | ({"Preference-Applied": ASYNC} if ASYNC in _preferences(request) else {})
        state = status(registry.entry(change.model))
        return JSONResponse({"success": True, "change": id, "model": change.model, "status": state}, 202, headers)
    done = change.task.result()
    if isinstance(done, BaseException):
        raise done.with_traceback(None)  # each time it is raised it would hold more frames
    (model,) = await described(registry, [registry.entry(change.model)])
    return JSONResponse({"success": True, "changed": done, "model": model})


async def show_change(request: Request) -> JSONResponse:
    """What came of a change that was answered with its id: as its own request would have been answered, or 202 while it goes on."""
    id = request.path_params["id"]
    if id not in context_of(request.app).changes:
        raise RequestError(f"there is no change {id[:100]!r}, or it ended long ago", "id", status=404, code="not_found")
    return await outcome(request, id)


def preferred(request: Request) -> float | None:
    """Seconds after which a client wants to hear that its change goes on; None: it waits for the end."""
    said = _preferences(request)
    waits = [min(float(found[1]), LONGEST_WAIT) for each in said if (found := _WAIT.match(each))]
    asynchronous = ASYNC in said or request.method in ("GET", "HEAD")
    return waits[0] if waits and asynchronous else 0.0 if asynchronous else None


def _preferences(request: Request) -> list[str]:
    """In small letters."""
    values = request.headers.getlist("prefer")
    return [each.strip().lower() for value in values for each in value.replace(";", ",").split(",")]


async def _told(context: Context, model: str, work: Awaitable[list[str]]) -> list[str] | BaseException:
    """What it gave, or the error; those who watch are told."""
    try:
        changed = await work
    except Exception as error:
        known = isinstance(error, LacewingError)
        if not known:
            _log.error("a change of %s failed", model, exc_info=error)
        message = str(error) if known else "an internal error occurred; the server's log has the details"
        context.registry.news.tell(model, "change_failed", {"message": message})
        return _without_frames(error)
    _log.info("model changed", extra={"model": model, "how": ", ".join(changed) or "nothing"})
    return changed


def _without_frames(error: Exception) -> Exception:
    """It is kept, and the frames that it and its causes went through would keep what was being loaded."""
    left: list[BaseException | None] = [error]
    seen = set[int]()
    while left:
        each = left.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = None
            left += each.__cause__, each.__context__
    return error
