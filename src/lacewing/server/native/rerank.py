"""POST /v1/rerank: documents in the order of what they have to do with a question, of a model that was trained to tell."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse

from lacewing.server.context import context_of
from lacewing.server.openai.bodies import ModelBody
from lacewing.server.openai.errors import RequestError
from lacewing.server.openai.requests import read

MAX_DOCUMENTS = 2048


class RerankBody(ModelBody):
    """A question, and texts."""

    query: str = Field(min_length=1, description="the question")
    documents: Annotated[list[str], Field(min_length=1, max_length=MAX_DOCUMENTS)] = Field(description="texts")
    top_n: Annotated[int, Field(ge=1)] | None = Field(None, description="return only this many of the best")


async def rerank(request: Request) -> JSONResponse:
    """Refused with 501: no architecture that this version runs ranks documents."""
    body = await read(request, RerankBody)
    entry = context_of(request.app).registry.entry(body.model)
    message = (
        f'{entry.name} cannot rank documents: that takes a model with a head trained for it (pooling "rank", such as BGE\'s or '
        "Qwen3's rerankers), and this version runs none. Vectors of /v1/embeddings, compared by their cosine, find texts that are "
        "alike, which is another question"
    )
    raise RequestError(message, "model", status=501, code="not_supported")
