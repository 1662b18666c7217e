"""GET /: that a server is here, in the words that Ollama's clients look for."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

RUNNING = "Ollama is running"


async def root(_: Request) -> Response:
    """That the server runs, as Ollama says it."""
    return PlainTextResponse(RUNNING)
