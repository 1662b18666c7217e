"""POST /api/embed, and /api/embeddings as it was before."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from lacewing.assistant.embedding import check_texts, finished
from lacewing.assistant.prompt import Prompt
from lacewing.options import Sampling
from lacewing.server.answers import Answers, Job
from lacewing.server.context import Served
from lacewing.server.exchange import Format
from lacewing.server.ollama.exchange import OllamaExchange, load_or_leave
from lacewing.server.ollama.options import OllamaBody, Whole
from lacewing.server.openai.embeddings import MAX_INPUTS
from lacewing.server.openai.requests import accept_body, read
from lacewing.server.openai.types import dumps

if TYPE_CHECKING:
    from lacewing.assistant.deltas import Delta
    from lacewing.server.events import Record
    from lacewing.server.feed import Choice

_NOTHING = Sampling(max_tokens=0, temperature=0)


class EmbedBody(OllamaBody):
    """Texts that become vectors. `unit`: these have length 1."""

    unit: ClassVar = True

    input: str | Annotated[list[str], Field(max_length=MAX_INPUTS)] | None = Field(None, description="a text, or a list of texts")
    truncate: bool | None = Field(None, description="texts that are too long are cut; default true. Otherwise they are refused")
    dimensions: Annotated[Whole, Field(ge=0, lt=2**31)] | None = Field(
        None, description="the first values alone; of use if the model was trained for it"
    )

    @property
    def texts(self) -> list[str]:
        given = self.input
        return list(given) if isinstance(given, list) else [given] if given else []


class OldEmbedBody(EmbedBody):
    """One text that becomes a vector, which keeps its length."""

    unit: ClassVar = False

    input: None = Field(None, description="see `/api/embed`")
    prompt: str | None = Field(None, description="the text")

    @property
    def texts(self) -> list[str]:
        return [self.prompt] if self.prompt else []


class EmbedExchange(OllamaExchange[EmbedBody]):
    """The vectors of one request's texts."""

    prompt_field = "input"

    def jobs(self, served: Served) -> list[Job]:
        body, tokenizer, context = self.body, served.model.tokenizer, served.model.spec.context
        check_texts(body.texts)
        room = min(context, body.chosen.num_ctx or context)
        ids = [tokenizer.encode_whole(text) for text in body.texts]
        if body.truncate is not False:
            ids = [each[:room] for each in ids]
        return [Job(Prompt.of_text(tokenizer, each), _NOTHING, pooling=served.model.pooling) for each in ids]

    def format(self, served: Served, answers: Answers) -> Format:
        return VectorWriter(self.body, self.record)


class VectorWriter(Format):
    """Vectors in the order of the texts."""

    def __init__(self, body: EmbedBody, record: Record):
        self._body, self._record = body, record

    def events(self, choice: Choice, deltas: Sequence[Delta]) -> bytes:
        return b""

    def last_event(self, choices: Sequence[Choice]) -> bytes:
        return b""

    def whole(self, choices: Sequence[Choice]) -> bytes:
        body, record = self._body, self._record
        vectors = [self._vector(choice) for choice in choices]
        if not body.unit:
            return dumps({"embedding": vectors[0]}).encode()
        count = sum(choice.stats.prompt_tokens for choice in choices if choice.stats is not None)
        total, load = time.perf_counter() - record.began, (record.loaded or record.began) - record.began
        cost = {"total_duration": int(total * 1e9), "load_duration": int(load * 1e9), "prompt_eval_count": count}
        return dumps({"model": body.model, "embeddings": vectors, **cost}).encode()

    def _vector(self, choice: Choice) -> list[float]:
        if choice.ticket is None:
            raise RuntimeError("an answer that did not begin")
        body = self._body
        found: list[float] = finished(choice.ticket.handle.hidden, normalise=body.unit, dimensions=body.dimensions or None).tolist()
        return found


async def embed(request: Request) -> EmbedExchange | Response:
    """Makes vectors of texts as Ollama's API does."""
    return await _embed(request, EmbedBody, {"embeddings": []})


async def embeddings(request: Request) -> EmbedExchange | Response:
    """Makes a vector of a text, as Ollama's API did at first."""
    return await _embed(request, OldEmbedBody, {"embedding": []})


async def _embed(request: Request, kind: type[EmbedBody], empty: dict[str, Any]) -> EmbedExchange | Response:
    body = await read(request, kind)
    if not body.texts:
        return await load_or_leave(request, body, empty)
    return accept_body(request, body, EmbedExchange)
