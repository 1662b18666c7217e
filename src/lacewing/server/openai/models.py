"""GET /v1/models and /v1/models/{name}: what can be asked for."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from lacewing.server.context import Entry, context_of
from lacewing.server.openai.errors import RequestError


async def list_models(request: Request) -> JSONResponse:
    """All models, those that are not in memory among them."""
    return JSONResponse({"object": "list", "data": [_model(each) for each in context_of(request.app).registry.names()]})


async def show_model(request: Request) -> JSONResponse:
    """One of them; 404 for others."""
    name = request.path_params["model"]
    for each in context_of(request.app).registry.names():
        if each.name == name:
            return JSONResponse(_model(each))
    raise RequestError(
        f"there is no model {name[:100]!r} here; GET /v1/models lists them", "model", status=404, code="model_not_found"
    )


def _model(entry: Entry) -> dict[str, Any]:
    return {"id": entry.name, "object": "model", "created": entry.created, "owned_by": "lacewing", "status": entry.status}
