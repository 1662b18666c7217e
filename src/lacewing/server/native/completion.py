"""POST /completion and /infill: texts continued and filled in, as llama-server has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from lacewing.assistant.grammar.choices import bind
from lacewing.assistant.prompt import Prompt
from lacewing.server.answers import Answers, Job
from lacewing.server.context import Served
from lacewing.server.dialect import Dialect
from lacewing.server.exchange import Exchange, Format
from lacewing.server.native.bodies import CompletionBody, InfillBody, NativeFields
from lacewing.server.native.filling import filled, marks_of
from lacewing.server.native.settings import settings_of
from lacewing.server.openai import errors
from lacewing.server.openai.constraints import grammar_of
from lacewing.server.openai.logprobs import Logprobs
from lacewing.server.openai.requests import accept
from lacewing.server.openai.types import dumps, timings

if TYPE_CHECKING:
    from lacewing.assistant.deltas import Delta
    from lacewing.options import Sampling
    from lacewing.server.feed import Choice
    from lacewing.text.tokenizer import Tokenizer

_STREAM = Dialect(errors.response, errors.event)  # without a mark behind the last event


class NativeExchange(Exchange[NativeFields]):
    """The continuations of one request's prompts."""

    prompt_field = "prompt"
    dialect = _STREAM

    def jobs(self, served: Served) -> list[Job]:
        body, tokenizer = self.body, served.model.tokenizer
        body.check()
        self.sampling = body.sampling(body.limit, body.n_probs or 0)
        grammar = grammar_of(None, body.json_schema, body.grammar)
        constrain = bind(grammar, tokenizer, served.model.engine.vocab_size, tokenizer.stop_ids, start=False)
        self.ids = list(self.prompts(served))
        return [Job(Prompt.of_text(tokenizer, each, constrain), self.sampling, body.seconds) for each in self.ids]

    def prompts(self, served: Served) -> list[list[int]]:
        """Ids of each. Raises RequestError."""
        body, tokenizer = self.body, served.model.tokenizer
        if isinstance(body, InfillBody):
            marks_of(served.model, 501)
            extra = [(each.filename, each.text) for each in body.input_extra or ()]
            return [filled(served.model, body.input_prefix, body.input_suffix, body.prompt or "", extra)]
        return [_ids(tokenizer, pieces) for pieces in body.prompts] if isinstance(body, CompletionBody) else []

    def format(self, served: Served, answers: Answers) -> Format:
        return NativeWriter(served, self.body, self.ids, self.sampling)


def _ids(tokenizer: Tokenizer, pieces: Sequence[str | int]) -> list[int]:
    """BOS stands before a text that comes first, if the model wants one."""
    ids: list[int] = []
    for place, each in enumerate(pieces):
        if isinstance(each, int):
            ids.append(each)
        else:
            ids += tokenizer.encode_prompt(each, markup=True) if place == 0 else tokenizer.encode_markup(each)
    return ids


class NativeWriter(Format):
    """Answers as llama-server frames them."""

    def __init__(self, served: Served, body: NativeFields, ids: Sequence[Sequence[int]], sampling: Sampling):
        self._served, self._body, self._ids, self._sampling = served, body, ids, sampling
        self._logprobs: dict[int, Logprobs] = {}

    def events(self, choice: Choice, deltas: Sequence[Delta]) -> bytes:
        parts = []
        for delta in deltas:
            if delta:
                parts.append(_event(self._piece(choice, str(delta), [delta]) | {"stop": False}))
        if choice.end is not None:
            parts.append(_event(self._end(choice, "", [])))
        return "".join(parts).encode()

    def last_event(self, choices: Sequence[Choice]) -> bytes:
        return b""

    def whole(self, choices: Sequence[Choice]) -> bytes:
        found = []
        for choice in choices:
            deltas = choice.take()
            found.append(self._end(choice, choice.decoder.message["content"], deltas))
            if not self._body.return_tokens:
                found[-1]["tokens"] = []
        return dumps(found if self._body.several else found[0]).encode()

    def _piece(self, choice: Choice, text: str, deltas: Sequence[Delta]) -> dict[str, Any]:
        stats = choice.stats
        found: dict[str, Any] = {
            "index": choice.index,
            "content": text,
            "tokens": [token.id for delta in deltas for token in delta.tokens],
            "id_slot": -1,  # answers have no place of their own
            "tokens_predicted": 0 if stats is None else stats.generated_tokens,
            "tokens_evaluated": 0 if stats is None else stats.prompt_tokens,
        }
        if self._body.n_probs and deltas:
            found["completion_probabilities"] = self._told(choice, deltas)
        if self._body.timings_per_token and stats is not None:
            found["timings"] = timings(stats)
        return found

    def _told(self, choice: Choice, deltas: Sequence[Delta]) -> list[dict[str, Any]]:
        top = self._body.n_probs or 0
        if choice.index not in self._logprobs:
            self._logprobs[choice.index] = Logprobs(self._served.model.tokenizer, top, continuation=True)
        tokens = [token for delta in deltas for token in delta.tokens]
        return self._logprobs[choice.index].native(tokens)

    def _end(self, choice: Choice, text: str, deltas: Sequence[Delta]) -> dict[str, Any]:
        end, body, model = choice.end, self._body, self._served.model
        stats = None if end is None else end.stats
        word = choice.decoder.stop_string
        limit = end is not None and end.reason in ("length", "repetition")
        found = self._piece(choice, text, deltas) | {
            "stop": True,
            "model": self._served.name,
            "generation_settings": settings_of(self._sampling, model.spec.context) | {"stream": body.streamed},
            "prompt": model.detokenize(self._ids[choice.index], special=True),
            "has_new_line": "\n" in choice.decoder.message["content"],
            "truncated": False,  # what is too long is refused
            "stop_type": "word" if word is not None else "limit" if limit else "eos",
            "stopping_word": word or "",
            "tokens_cached": 0 if stats is None else stats.reused_tokens,
        }
        return found if stats is None else found | {"timings": timings(stats)}


def _event(data: dict[str, Any]) -> str:
    return f"data: {dumps(data)}\n\n"


async def completion(request: Request) -> NativeExchange:
    """Continues texts, as llama-server's own API does."""
    return await accept(request, CompletionBody, NativeExchange)


async def infill(request: Request) -> NativeExchange:
    """Fills in the middle of a text, of a model that was trained for it."""
    return await accept(request, InfillBody, NativeExchange)
