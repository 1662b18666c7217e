"""POST /v1/completions: raw texts, or token ids, to be continued."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request

from lacewing.assistant.grammar.choices import bind
from lacewing.assistant.prompt import Prompt
from lacewing.server.answers import Answers, Job
from lacewing.server.context import Served
from lacewing.server.exchange import Exchange, Format
from lacewing.server.native.filling import filled
from lacewing.server.openai.bodies import MAX_CHOICES, AnswerBody
from lacewing.server.openai.constraints import grammar_of
from lacewing.server.openai.errors import RequestError
from lacewing.server.openai.requests import accept
from lacewing.server.openai.text_format import TextWriter

MAX_PROMPTS = 128
MAX_ANSWERS = 256  # to all prompts of a request
MAX_TOP = 20
DEFAULT_TOKENS = 16  # as OpenAI has it for this endpoint

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Ids = Annotated[list[TokenId], Field(min_length=1)]
Texts = Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)]
Batches = Annotated[list[Ids], Field(min_length=1, max_length=MAX_PROMPTS)]


class CompletionBody(AnswerBody):
    """What is to be continued, and how."""

    prompt: str | Texts | Ids | Batches = Field(description="a text, a list of texts, token ids, or a list of such lists")
    best_of: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = Field(None, description="must be `n`, if anything")
    echo: bool | None = Field(None, description="the answer begins with the prompt")
    suffix: str | None = Field(
        None, description="the answer is what stands between the prompt, one text, and this, of a model that can fill in"
    )
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP)] | None = Field(None, description="0 to 20 likeliest tokens beside each one")
    json_schema: dict[str, Any] | None = Field(None, description="a schema that the text follows, as llama-server takes it")
    grammar: str | None = Field(None, description="a grammar that the text follows, in GBNF or Lark, as llama-server takes it")
    special: bool | None = Field(
        None, description="spellings of control tokens in the prompt become these tokens; never for text from others"
    )

    @property
    def prompts(self) -> list[str | list[int]]:
        prompt: Any = self.prompt
        return list(prompt) if isinstance(prompt, list) and isinstance(prompt[0], (str, list)) else [prompt]

    def check(self) -> None:
        """Raises RequestError for what is not supported, or too much."""
        if self.suffix and (not isinstance(self.prompt, str) or self.echo or self.special):
            message = "`suffix` needs a prompt that is one text, and goes with neither `echo` nor `special`"
            raise RequestError(message, "suffix", code="unsupported_parameter")
        if self.best_of not in (None, self.n or 1):
            raise RequestError("`best_of` must be as `n`: all answers are returned", "best_of", code="unsupported_parameter")
        if len(self.prompts) * (self.n or 1) > MAX_ANSWERS:
            raise RequestError(
                f"{len(self.prompts)} prompts with `n` {self.n} are too many; at most {MAX_ANSWERS} answers", "prompt"
            )


class CompletionExchange(Exchange[CompletionBody]):
    """The continuations of one request's prompts."""

    prompt_field = "prompt"

    def jobs(self, served: Served) -> list[Job]:
        body, tokenizer = self.body, served.model.tokenizer
        body.check()
        limit = DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
        sampling = body.sampling(limit, 0 if body.logprobs is None else max(1, body.logprobs))
        told = max(1, body.logprobs) if body.echo and body.logprobs is not None else 0
        grammar = grammar_of(None, body.json_schema, body.grammar)
        constrain = bind(grammar, tokenizer, served.model.engine.vocab_size, tokenizer.stop_ids, start=False)
        jobs = []
        for given in body.prompts:
            if body.suffix and isinstance(given, str):
                ids = filled(served.model, given, body.suffix)
            else:
                ids = given if isinstance(given, list) else tokenizer.encode_prompt(given, markup=bool(body.special))
            prompt = Prompt.of_text(tokenizer, ids, constrain)
            jobs += [Job(prompt, each, body.seconds, told) for each in body.seeded(sampling)]
        return jobs

    def format(self, served: Served, answers: Answers) -> Format:
        body, tokenizer = self.body, served.model.tokenizer
        each = bool(body.timings_per_token)
        writer = TextWriter(served.name, tokenizer, body.logprobs, body.wants_usage, each, continuation=True)
        if body.echo:
            writer.echoed = [each if isinstance(each, str) else tokenizer.decode(each, special=True) for each in body.prompts]
        return writer


async def completions(request: Request) -> CompletionExchange:
    """Continues texts."""
    return await accept(request, CompletionBody, CompletionExchange)
