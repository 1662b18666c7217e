"""GET and POST /models, POST /models/load and /models/unload: models come, change and go while others are answered."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasChoices, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse

from lacewing import hub
from lacewing.server.admin import changes
from lacewing.server.admin.entries import described, listed
from lacewing.server.context import context_of
from lacewing.server.openai.bodies import ModelBody
from lacewing.server.openai.errors import RequestError
from lacewing.server.openai.requests import read


class ChangeBody(ModelBody):
    """A model, and whether to wait."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    wait: bool = Field(
        False,
        description="answer when it is done, or as `Prefer` says, with the model; default: at once; `/models/sse` tells the rest",
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
    id = changes.begin(context, body.model, lambda: context.registry.load(body.model, body.given, body.force), changes.MOST)
    return await _answer(request, body, id)


async def unload_model(request: Request) -> JSONResponse:
    """A model leaves the memory when its answers are over; loading is given up."""
    body, context = await read(request, UnloadBody), context_of(request.app)

    async def work() -> list[str]:
        return ["unloaded"] if await context.registry.unload(body.model, body.force) else []

    return await _answer(request, body, changes.begin(context, body.model, work))


async def _answer(request: Request, body: ChangeBody, id: str) -> JSONResponse:
    """Without `wait` at once, as llama-server does."""
    return await changes.outcome(request, id) if body.wait else JSONResponse({"success": True})


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
