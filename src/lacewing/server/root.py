"""GET /: the web page for a browser; for others that a server is here, in the words that Ollama's clients look for."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from lacewing.server.page.assets import page

RUNNING = "Ollama is running"


async def root(request: Request) -> Response:
    """The web page, for a browser; other programs are told that the server runs, as Ollama says it."""
    if "text/html" in request.headers.get("accept", ""):
        return page(request)
    return PlainTextResponse(RUNNING, headers={"vary": "Accept"})
