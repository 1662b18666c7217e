"""POST /api/pull: fetching a model by a name of ours, told line by line; and what there is not here."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from lacewing import hub
from lacewing.server.context import Context, context_of
from lacewing.server.dialect import LINES
from lacewing.server.errors import UnknownModelError
from lacewing.server.ollama import errors
from lacewing.server.openai.bodies import Body
from lacewing.server.openai.errors import RequestError
from lacewing.server.openai.requests import read

_ELSEWHERE = {
    "/api/create": "models are files here: put one into the folder of --models-dir, or name it when the server starts",
    "/api/copy": "a model has one name here, that of its file",
    "/api/delete": "this server deletes nothing; on its machine, `lacewing rm` deletes what has been fetched",
    "/api/push": "this server sends no models away",
}


class PullBody(Body):
    """Which model."""

    model: str | None = Field(None, description="a name of `/models/known`; other addresses are fetched by `lacewing pull`")
    name: str | None = Field(None, description="the same, as it was called before")
    stream: bool | None = Field(None, description="lines of JSON that tell the progress; default true")
    insecure: bool | None = Field(None, description="ignored: files are checked by their SHA-256")


async def pull(request: Request) -> Response:
    """Fetches a model; it is served afterwards."""
    body, context = await read(request, PullBody), context_of(request.app)
    name = (body.model or body.name or "").removesuffix(":latest")
    if not name:
        raise RequestError("model is required", "model", code="missing_required_parameter")
    if not _served(context, name):
        context.registry.downloads.start(name)  # refused before the first line
    lines = _lines(context, name)
    if body.stream is not False:
        return StreamingResponse(_encoded(lines), media_type=LINES.decode())
    last: dict[str, Any] = {}
    async for line in lines:
        last = line
    return JSONResponse(last)


async def elsewhere(request: Request) -> Response:
    """Refused: a server of files has no such thing."""
    message = f"{request.url.path} is not supported: {_ELSEWHERE[request.url.path]}"
    raise RequestError(message, status=501, code="not_supported")


def _served(context: Context, name: str) -> bool:
    """Whether there is nothing to fetch."""
    with contextlib.suppress(UnknownModelError):
        context.registry.entry(name)
        return name not in hub.NAMED or hub.find(name) is not None
    return False


async def _lines(context: Context, name: str) -> AsyncIterator[dict[str, Any]]:
    """What happens, as Ollama tells it. Raises LacewingError."""
    yield {"status": "pulling manifest"}
    if not _served(context, name):
        told: asyncio.Queue[tuple[str, int, int]] = asyncio.Queue()
        following = asyncio.ensure_future(context.registry.downloads.follow(name, lambda *stage: told.put_nowait(stage)))
        waiting: asyncio.Future[tuple[str, int, int]] | None = None
        try:
            while not following.done() or not told.empty():
                waiting = asyncio.ensure_future(told.get())
                await asyncio.wait((following, waiting), return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    what, done, total = waiting.result()
                    bar = hashlib.sha256(f"{name} {what}".encode()).hexdigest()  # by it clients tell their bars apart
                    yield {"status": what, "digest": f"sha256:{bar}", "total": total, "completed": done}
            await following
        finally:
            following.cancel()
            if waiting is not None:
                waiting.cancel()
    yield {"status": "success"}


async def _encoded(lines: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    try:
        async for line in lines:
            yield json.dumps(line).encode() + b"\n"
    except Exception as error:  # the log has what is none of ours
        yield errors.event(error)
