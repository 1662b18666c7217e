"""GET /health: whether requests can be answered."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse

from lacewing.server.context import context_of


async def health(request: Request) -> JSONResponse:
    """200 and {"status": "ok"}; else 503, with the reason, in the form that llama-server has."""
    found = context_of(request.app).registry.health
    if found.status == "ok":
        return JSONResponse({"status": "ok"})
    error = {"message": found.message, "type": "unavailable_error", "code": 503}
    return JSONResponse({"status": found.status, "error": error}, 503)
