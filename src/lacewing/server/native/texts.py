"""POST /tokenize, /detokenize, /apply-template: what a model's tokenizer and template make of texts, as llama-server has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse

from lacewing.server.context import Served, context_of
from lacewing.server.openai.bodies import ModelBody
from lacewing.server.openai.chat import ConversationBody
from lacewing.server.openai.completions import TokenId
from lacewing.server.openai.requests import read


class TokenizeBody(ModelBody):
    """A text that becomes ids."""

    content: str = Field(description="the text")
    add_special: bool | None = Field(None, description="with BOS, if the model wants one; default false")
    parse_special: bool | None = Field(None, description="spellings of control tokens become these tokens; default false")
    with_pieces: bool | None = Field(None, description="tell the text of each token, or its bytes if it is none")


class DetokenizeBody(ModelBody):
    """Ids that become text."""

    tokens: list[TokenId] = Field(description="ids; control tokens are shown as they are spelt")


async def tokenize(request: Request) -> JSONResponse:
    """Ids of a text."""
    body = await read(request, TokenizeBody)

    def work(served: Served) -> dict[str, Any]:
        tokenizer, markup = served.model.tokenizer, bool(body.parse_special)
        if body.add_special:
            ids = tokenizer.encode_prompt(body.content, markup=markup)
        else:
            ids = served.model.tokenize(body.content, special=markup)
        if not body.with_pieces:
            return {"tokens": ids}
        return {"tokens": [{"id": token, "piece": _piece(tokenizer.token_bytes(token))} for token in ids]}

    return await with_model(request, body, work)


async def detokenize(request: Request) -> JSONResponse:
    """The text of ids."""
    body = await read(request, DetokenizeBody)
    return await with_model(request, body, lambda served: {"content": served.model.detokenize(body.tokens, special=True)})


async def apply_template(request: Request) -> JSONResponse:
    """The prompt that a conversation becomes, as text."""
    body = await read(request, ConversationBody)

    def work(served: Served) -> dict[str, Any]:
        prompt = body.prompt(served.worker.assistant)
        return {"prompt": served.model.detokenize(prompt.ids, special=True)}

    return await with_model(request, body, work)


async def with_model(request: Request, body: ModelBody, work: Callable[[Served], dict[str, Any]]) -> JSONResponse:
    """The answer of `work`, which runs in a thread. It counts among the requests that wait."""
    context = context_of(request.app)
    visit = context.room.enter()
    try:
        async with context.registry.use(body.model) as served:
            return JSONResponse(await asyncio.to_thread(work, served))
    finally:
        visit.leave()


def _piece(data: bytes) -> str | list[int]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)
