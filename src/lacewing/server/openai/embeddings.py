"""POST /v1/embeddings."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request

from lacewing.assistant.embedding import check_texts, finished
from lacewing.assistant.prompt import Prompt
from lacewing.options import Sampling
from lacewing.server.answers import Answers, Job
from lacewing.server.context import Served
from lacewing.server.exchange import Exchange, Format, WholeFormat
from lacewing.server.openai.bodies import NamedModelBody
from lacewing.server.openai.completions import Ids
from lacewing.server.openai.requests import accept
from lacewing.server.openai.types import dumps

if TYPE_CHECKING:
    from lacewing.server.feed import Choice

MAX_INPUTS = 2048
_NOTHING = Sampling(max_tokens=0, temperature=0)

Texts = Annotated[list[str], Field(min_length=1, max_length=MAX_INPUTS)]
Batches = Annotated[list[Ids], Field(min_length=1, max_length=MAX_INPUTS)]


class EmbeddingBody(NamedModelBody):
    """Texts that become vectors."""

    input: str | Texts | Ids | Batches = Field(description="a text, a list of texts, token ids, or a list of such lists")
    encoding_format: Literal["float", "base64"] | None = Field(None, description='"float", or "base64" of little-endian float32')
    dimensions: Annotated[int, Field(ge=1, lt=2**31)] | None = Field(
        None, description="the first values alone; of use if the model was trained for it"
    )
    pooling: Literal["last", "mean", "none"] | None = Field(
        None,
        description='of a text\'s tokens; "none": `embedding` is a list of vectors, one a token; default: as the checkpoint says',
    )
    normalize: bool | None = Field(None, description="to length 1; default true, but for pooling none")

    @property
    def inputs(self) -> list[str | list[int]]:
        given: Any = self.input
        return list(given) if isinstance(given, list) and isinstance(given[0], (str, list)) else [given]


class EmbeddingExchange(Exchange[EmbeddingBody]):
    """The vectors of one request's texts; they run in batches with everything else."""

    prompt_field = "input"

    def jobs(self, served: Served) -> list[Job]:
        tokenizer, pooling = served.model.tokenizer, self.body.pooling or served.model.pooling
        check_texts([each for each in self.body.inputs if isinstance(each, str)])
        ids = [each if isinstance(each, list) else tokenizer.encode_whole(each) for each in self.body.inputs]
        return [Job(Prompt.of_text(tokenizer, each), _NOTHING, pooling=pooling) for each in ids]

    def format(self, served: Served, answers: Answers) -> Format:
        return VectorWriter(served.name, self.body)


class VectorWriter(WholeFormat):
    """A list of vectors, in the order of the texts."""

    def __init__(self, model: str, body: EmbeddingBody):
        self._model, self._body = model, body

    def whole(self, choices: Sequence[Choice]) -> bytes:
        count = sum(choice.stats.prompt_tokens for choice in choices if choice.stats is not None)
        usage = {"prompt_tokens": count, "total_tokens": count}
        return dumps({"object": "list", "data": list(map(self._vector, choices)), "model": self._model, "usage": usage}).encode()

    def _vector(self, choice: Choice) -> dict[str, Any]:
        if choice.ticket is None:
            raise RuntimeError("an answer that did not begin")
        body = self._body
        normalise = body.pooling != "none" if body.normalize is None else body.normalize
        vector = finished(choice.ticket.handle.hidden, normalise=normalise, dimensions=body.dimensions)
        if body.encoding_format != "base64":
            encoded = vector.tolist()
        else:
            rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vector.reshape(-1, vector.shape[-1])]
            encoded = rows if body.pooling == "none" else rows[0]
        return {"object": "embedding", "index": choice.index, "embedding": encoded}


async def embeddings(request: Request) -> EmbeddingExchange:
    """Makes vectors of texts."""
    return await accept(request, EmbeddingBody, EmbeddingExchange)
