"""GET and POST /models, POST /models/load and /models/unload: models come, change and go while others are answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasChoices, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse

from lacewing import hub
from lacewing.errors import LacewingError
from lacewing.server.admin.entries import described, listed
from lacewing.server.context import Context, context_of
from lacewing.server.openai.bodies import ModelBody
from lacewing.server.openai.errors import RequestError
from lacewing.server.openai.requests import read

_log = logging.getLogger("lacewing.server")


class ChangeBody(ModelBody):
    """A model, and whether to wait."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    wait: bool = Field(
        False, description="answer when it is done, with the model; default: at once, and `/models/sse` tells the rest"
    )
    force: bool = Field(False, description="whatever stands against it")


class LoadBody(ChangeBody):
    """How a model is to be in memory. What is not said stays as it is."""

    fields: ClassVar = ("context", "residency", "template")

    residency: Literal["lazy", "eager", "streamed", "auto"] | None = Field(
        None,
        description='"lazy" pages weights in from the file, "eager" holds them in RAM, "streamed" holds all in RAM except '
        "the experts, which are read from disk as the router selects them; null: as the server was started",
    )
    context: Annotated[int, Field(ge=1, le=2**27)] | None = Field(
        None,
        validation_alias=AliasChoices("context", "context_length"),
        description="in tokens, also as `context_length`; null: as the server was started. The model is loaded anew",
    )
    template: Annotated[str, Field(min_length=1, max_length=4096)] | None = Field(
        None, description='the name of a chat template (`/models/templates`), or "auto": the checkpoint\'s own'
    )
    force: bool = Field(
        False, description="also weights that the memory plan has no room for, and a template whose tokens the vocabulary lacks"
    )

    @property
    def given(self) -> dict[str, Any]:
        """The fields of a `Setup` that were said."""
        found = {name: getattr(self, name) for name in self.fields if name in self.model_fields_set}
        return {**found, "template": self.template or "auto"} if "template" in found else found


class UnloadBody(ChangeBody):
    """Which model is to leave."""

    force: bool = Field(False, description="end its answers now; default: let them finish")


class FetchBody(ModelBody):
    """Which model is to be fetched."""

    model: str = Field(description="one of the names of `/models/known`")


async def list_models(request: Request) -> JSONResponse:
    """All models and their state, including models that are not in memory."""
    registry = context_of(request.app).registry
    return JSONResponse(listed(await described(registry, registry.names())))


async def show_model(request: Request) -> JSONResponse:
    """One of them; 404 for others."""
    registry, name = context_of(request.app).registry, request.path_params["model"]
    for entry in registry.names():
        if entry.name == name:
            return JSONResponse((await described(registry, [entry]))[0])
    raise RequestError(
        f"there is no model {name[:100]!r} here; GET /v1/models lists them", "model", status=404, code="model_not_found"
    )


async def load_model(request: Request) -> JSONResponse:
    """Loads a model, or changes residency, context and template of one in memory, while its answers go on."""
    body, context = await read(request, LoadBody), context_of(request.app)
    context.registry.entry(body.model)

    async def work() -> dict[str, Any]:
        return {"changed": await context.registry.load(body.model, body.given, body.force)}

    return await _do(context, body, work)


async def unload_model(request: Request) -> JSONResponse:
    """A model leaves the memory when its answers are over; loading is given up."""
    body, context = await read(request, UnloadBody), context_of(request.app)
    context.registry.entry(body.model)

    async def work() -> dict[str, Any]:
        return {"changed": ["unloaded"] if await context.registry.unload(body.model, body.force) else []}

    return await _do(context, body, work)


async def fetch_model(request: Request) -> JSONResponse:
    """Fetches a model by its name, in the background; it is served afterwards."""
    body, context = await read(request, FetchBody), context_of(request.app)
    context.registry.downloads.start(body.model)
    return JSONResponse({"success": True})


async def delete_model(_: Request) -> JSONResponse:
    """Refused: this server deletes no files."""
    message = "this server deletes nothing; on its machine, `lacewing rm` deletes what has been fetched"
    raise RequestError(message, status=501, code="not_supported")


async def known_models(request: Request) -> JSONResponse:
    """Models that can be fetched by name."""
    known = [{"name": name, "about": row.about, "here": hub.find(name) is not None} for name, row in hub.NAMED.items()]
    return JSONResponse({"data": known})


async def _do(context: Context, body: ChangeBody, work: Callable[[], Awaitable[dict[str, Any]]]) -> JSONResponse:
    """Now, or in the background."""
    task = asyncio.ensure_future(_told(context, body.model, work()))
    context.background.add(task)
    task.add_done_callback(context.background.discard)
    if not body.wait:
        return JSONResponse({"success": True})
    done = await asyncio.shield(task)  # it goes on, whoever leaves
    if isinstance(done, BaseException):
        raise done
    registry = context.registry
    (model,) = await described(registry, [registry.entry(body.model)])
    return JSONResponse({"success": True, **done, "model": model})


async def _told(context: Context, name: str | None, work: Awaitable[dict[str, Any]]) -> dict[str, Any] | BaseException:
    """What it gave, or the error; those who watch are told."""
    model = context.registry.entry(name).name
    try:
        done = await work
    except Exception as error:
        known = isinstance(error, LacewingError)
        if not known:
            _log.error("a change of %s failed", model, exc_info=error)
        message = str(error) if known else "an internal error occurred; the server's log has the details"
        context.registry.news.tell(model, "change_failed", {"message": message})
        return error
    _log.info("model changed", extra={"model": model, "how": ", ".join(done["changed"]) or "nothing"})
    return done
