"""POST /api/generate: one prompt, through the template, raw, or to be filled in."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from lacewing.assistant.grammar.choices import bind
from lacewing.assistant.options import ChatOptions
from lacewing.assistant.prompt import Prompt
from lacewing.assistant.reply import Assistant
from lacewing.assistant.templates import open_template
from lacewing.server.answers import Answers, Job
from lacewing.server.context import Served
from lacewing.server.exchange import Format
from lacewing.server.native.filling import filled
from lacewing.server.ollama.chat import refuse_images
from lacewing.server.ollama.exchange import AnswerExchange, Message, load_or_leave
from lacewing.server.ollama.options import AnswerBody
from lacewing.server.ollama.writing import LineWriter
from lacewing.server.openai.completions import TokenId
from lacewing.server.openai.errors import RequestError
from lacewing.server.openai.requests import accept_body, read
from lacewing.text.template import NAMES, ChatTemplate

if TYPE_CHECKING:
    from lacewing.assistant.deltas import Delta

_GO = re.compile(r"\{\{-?\s*(?:\.|\$|if\b|range\b|end\b|else\b)")  # of a template as Ollama's files have them


class GenerateBody(AnswerBody):
    """A prompt, and how it is to be answered."""

    prompt: str | None = Field(None, description="none: the model is loaded, or leaves if `keep_alive` is 0")
    suffix: str | None = Field(None, description="the answer is what stands between `prompt` and this, of a model that can fill in")
    system: str | None = Field(None, description="what the system says before the prompt")
    template: str | None = Field(None, description="the name of a chat template of ours, or one in Jinja; not Go's templates")
    context: list[TokenId] | None = Field(None, description="that of an earlier answer, which this one follows")
    raw: bool | None = Field(
        None, description="the prompt goes to the model as it is, spellings of control tokens as these; never for text from others"
    )
    images: list[Any] | None = Field(None, description="refused: text only")

    def check(self) -> None:
        """Raises RequestError for what is not supported, or does not go together."""
        refuse_images(self.images, "images")
        if self.raw and (self.template or self.system or self.context):
            raise RequestError("raw mode does not support template, system, or context", "raw", code="invalid_value")


class GenerateExchange(AnswerExchange[GenerateBody]):
    """The answer to one prompt."""

    prompt_field = "prompt"
    prompt: Prompt

    def jobs(self, served: Served) -> list[Job]:
        body, room = self.body, self.room(served)
        body.check()
        plain = bool(body.raw or body.suffix)
        self.prompt = self.checked(self._plain(served) if plain else self._chat(served), room)
        top = 0 if body.top is None else max(1, body.top)
        return [Job(self.prompt, body.chosen.sampling(top, room - len(self.prompt.ids)))]

    def _plain(self, served: Served) -> Prompt:
        body, tokenizer = self.body, served.model.tokenizer
        text, grammar = body.prompt or "", body.grammar
        constrain = bind(grammar, tokenizer, served.model.engine.vocab_size, tokenizer.stop_ids, start=False)
        if body.suffix and not body.raw:
            return Prompt.of_text(tokenizer, filled(served.model, text, body.suffix), constrain)
        return Prompt.of_text(tokenizer, tokenizer.encode_prompt(text, markup=True), constrain)

    def _chat(self, served: Served) -> Prompt:
        body = self.body
        self.check_thinking(served)
        messages: list[Message] = [{"role": "system", "content": body.system}] if body.system else []
        messages.append({"role": "user", "content": body.prompt})
        options = ChatOptions(constraint=body.grammar, reasoning_effort=body.effort)
        prompt = self._assistant(served).prompt(messages, options)
        if not body.context:
            return prompt
        ids = list(prompt.ids)
        bos = served.model.tokenizer.bos_id
        return dataclasses.replace(prompt, ids=[*body.context, *(ids[1:] if ids[:1] == [bos] else ids)], shared=())

    def _assistant(self, served: Served) -> Assistant:
        """With the template of the request, where it has one."""
        given, model = self.body.template, served.model
        if not given:
            return served.worker.assistant
        if given.lower() in NAMES:
            return Assistant(model.engine, model.tokenizer, open_template(given, model.info, model.tokenizer, files=False))
        template = ChatTemplate(given, "template of the request")
        if _GO.search(given) or not template.renders_messages():
            what = f"a chat template in Jinja, which renders `messages`, or one of {', '.join(NAMES)}"
            message = f"`template` must be {what}; templates in Go's language are not supported"
            raise RequestError(message, "template", code="invalid_value")
        return Assistant(model.engine, model.tokenizer, template)

    def format(self, served: Served, answers: Answers) -> Format:
        body = self.body
        plain = bool(body.raw or body.suffix)
        ids = None if body.raw else self.prompt.ids
        return GenerateWriter(body.model, self.record, served.model.tokenizer, body.top, continuation=plain, ids=ids)


class GenerateWriter(LineWriter):
    """Pieces are text. `ids`: of the prompt, with which an answer tells its `context`; None: it does not."""

    def __init__(self, *given: Any, ids: Sequence[int] | None, **more: Any):
        super().__init__(*given, **more)
        if ids is not None:
            self.more["context"] = list(ids)

    def see(self, delta: Delta) -> None:
        if "context" in self.more:
            self.more["context"] += [token.id for token in delta.tokens]

    def piece(self, text: str, thoughts: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
        return {"response": text, "thinking": thoughts} if thoughts else {"response": text}


async def generate(request: Request) -> GenerateExchange | Response:
    """Answers a prompt as Ollama's API does."""
    body = await read(request, GenerateBody)
    if not body.prompt and not body.suffix:
        body.check()
        return await load_or_leave(request, body, {"response": ""})
    return accept_body(request, body, GenerateExchange)
