"""POST /v1/rerank: documents by their relevance to a query, of a model that was trained to tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from lacewing.assistant.prompt import Prompt
from lacewing.assistant.ranking import Ranker
from lacewing.errors import UnsupportedModelError
from lacewing.options import Sampling
from lacewing.server.answers import Answers, Job, check_length
from lacewing.server.context import Served, context_of
from lacewing.server.exchange import Exchange, Format, WholeFormat
from lacewing.server.models.loading import in_thread
from lacewing.server.openai.bodies import ModelBody
from lacewing.server.openai.errors import RequestError
from lacewing.server.openai.requests import accept_body, read
from lacewing.server.openai.types import dumps

if TYPE_CHECKING:
    from lacewing.server.feed import Choice

MAX_DOCUMENTS = 2048
_NOTHING = Sampling(max_tokens=0, temperature=0)


class Document(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    text: str


class RerankBody(ModelBody):
    """A query, and texts."""

    query: str = Field(min_length=1, description="the query")
    documents: Annotated[list[str | Document], Field(min_length=1, max_length=MAX_DOCUMENTS)] = Field(
        description="texts, or objects with a `text`, as Jina's and Cohere's clients send them"
    )
    top_n: Annotated[int, Field(ge=1)] | None = Field(None, description="return only this many of the best")
    return_documents: bool | None = Field(None, description="each result has its text as well")
    instruct: str | None = Field(
        None,
        min_length=1,
        description="the instruction that says what is relevant; default: that of the model card, answers to a web search",
    )

    @property
    def texts(self) -> list[str]:
        return [each if isinstance(each, str) else each.text for each in self.documents]


class RerankExchange(Exchange[RerankBody]):
    """One prompt for each document; they run in batches with everything else, and share their beginning."""

    prompt_field = "documents"

    def jobs(self, served: Served) -> list[Job]:
        body, tokenizer = self.body, served.model.tokenizer
        try:
            self.ranker = Ranker(served.model.info)
        except UnsupportedModelError as error:
            raise _refused(error) from None
        found = []
        for text in body.texts:
            prompt = Prompt.of_text(tokenizer, self.ranker.ids(body.query, text, body.instruct))
            # Each has the query in it: of thousands that are too long one is made.
            check_length(prompt, served.model.spec.context, self.prompt_field)
            found.append(Job(prompt, _NOTHING, pooling="last"))
        return found

    def format(self, served: Served, answers: Answers) -> Format:
        return RankingWriter(served.name, self.body, self.ranker)


class RankingWriter(WholeFormat):
    """The documents by their scores, the best first."""

    def __init__(self, model: str, body: RerankBody, ranker: Ranker):
        self._model, self._body, self._ranker = model, body, ranker

    def whole(self, choices: Sequence[Choice]) -> bytes:
        count = sum(choice.stats.prompt_tokens for choice in choices if choice.stats is not None)
        results = sorted(map(self._result, choices), key=lambda each: (-each["relevance_score"], each["index"]))[: self._body.top_n]
        texts = self._body.texts if self._body.return_documents else []
        for result in results if texts else []:
            result["document"] = {"text": texts[result["index"]]}
        usage = {"prompt_tokens": count, "total_tokens": count}
        found = {"model": self._model, "object": "list", "usage": usage, "results": results}
        return dumps(found).encode()

    def _result(self, choice: Choice) -> dict[str, Any]:
        if choice.ticket is None:
            raise RuntimeError("an answer that did not begin")
        return {"index": choice.index, "relevance_score": self._ranker.score(choice.ticket.handle.hidden)}


def _refused(error: UnsupportedModelError) -> RequestError:
    return RequestError(str(error), "model", status=501, code="not_supported")


async def rerank(request: Request) -> RerankExchange:
    """Ranks documents by their relevance to a query; 501 for a model that is no reranker."""
    body = await read(request, RerankBody)
    registry = context_of(request.app).registry
    entry = registry.entry(body.model)
    facts = await in_thread(lambda: registry.facts(entry))
    if facts is not None and "rerank" not in facts.capabilities:  # it is not loaded for this
        raise _refused(Ranker.refusal(entry.name))
    return accept_body(request, body, RerankExchange)
