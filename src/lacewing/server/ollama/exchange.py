"""What chat and generate have in common: how much of a context there is, and how long a model stays."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse

from lacewing.server.answers import PromptTooLongError
from lacewing.server.context import Served, context_of
from lacewing.server.exchange import Exchange
from lacewing.server.models.facts import thinks
from lacewing.server.ollama.errors import DIALECT
from lacewing.server.ollama.options import AnswerBody, OllamaBody
from lacewing.server.ollama.writing import now
from lacewing.server.openai.errors import RequestError

if TYPE_CHECKING:
    from lacewing.assistant.prompt import Prompt
    from lacewing.server.queue import Visit
    from lacewing.server.sse import EventStream, Send

TOllamaBody = TypeVar("TOllamaBody", bound=OllamaBody)
TAnswerBody = TypeVar("TAnswerBody", bound=AnswerBody)
Message = dict[str, Any]


class OllamaExchange(Exchange[TOllamaBody]):
    """A request of Ollama's API, which says how long the model stays."""

    dialect = DIALECT

    async def _serve(self, visit: Visit, events: EventStream | None, send: Send) -> None:
        try:
            await super()._serve(visit, events, send)
        finally:
            seconds = self.body.seconds()
            if seconds is not None:
                self.context.registry.keep(self.body.model, seconds)


class AnswerExchange(OllamaExchange[TAnswerBody]):
    """An answer. `dropped`: messages that did not fit."""

    dropped = 0

    def check_thinking(self, served: Served) -> None:
        """Raises RequestError if thoughts are wanted of a model that has none."""
        if self.body.think and not thinks(served.worker.assistant.format.template):
            raise RequestError(f"{self.body.model!r} does not support thinking", "think", code="unsupported_parameter")

    def room(self, served: Served) -> int:
        """Tokens that prompt and answer may have together."""
        context = served.model.spec.context
        return min(context, self.body.chosen.num_ctx or context)

    def fitted(self, messages: Sequence[Message], room: int, make: Callable[[Sequence[Message]], Prompt]) -> Prompt:
        """The prompt of a conversation, without its oldest turns if it is too long. What the system says stays, and the last turn.

        Raises PromptTooLongError.
        """
        prompt = make(messages)
        if len(prompt.ids) <= room or self.body.truncate is False:
            return self.checked(prompt, room)
        kept = [each for each in messages if each["role"] == "system"]
        others = [each for each in messages if each["role"] != "system"]
        starts = [place for place, each in enumerate(others) if each["role"] == "user" and place] or [0]
        low, high = 0, len(starts) - 1  # the fewest turns to leave out; each try renders the rest
        while low < high:
            middle = (low + high) // 2
            if len(make([*kept, *others[starts[middle] :]]).ids) <= room:
                high = middle
            else:
                low = middle + 1
        self.dropped = starts[low]
        return self.checked(make([*kept, *others[starts[low] :]]), room)

    def checked(self, prompt: Prompt, room: int) -> Prompt:
        """Raises PromptTooLongError, or RequestError if `num_ctx` is what bounds it."""
        tokens = len(prompt.ids)
        if tokens > room and room == self.body.chosen.num_ctx:
            what = f"`num_ctx` of this request makes {room} tokens the maximum context length, and it has {tokens}"
            message = f"the prompt is too long: {what}; raise `num_ctx`, or shorten the prompt"
            raise RequestError(message, "options.num_ctx", code="context_length_exceeded")
        if tokens > room:
            raise PromptTooLongError(tokens, room, self.prompt_field)
        return prompt


async def load_or_leave(request: Request, body: OllamaBody, empty: dict[str, Any]) -> JSONResponse:
    """The answer to a request without a prompt: the model is loaded, or leaves if `keep_alive` is 0."""
    registry, seconds = context_of(request.app).registry, body.seconds()
    entry = registry.entry(body.model)
    if seconds == 0:
        if entry.status not in ("unloaded", "failed"):
            await registry.unload(entry.name)
        return JSONResponse({"model": body.model, "created_at": now(), **empty, "done": True, "done_reason": "unload"})
    await in_room(request, lambda: _load(registry, body, seconds))
    return JSONResponse({"model": body.model, "created_at": now(), **empty, "done": True, "done_reason": "load"})


async def _load(registry: Any, body: OllamaBody, seconds: float | None) -> None:
    async with registry.use(body.model):
        if seconds is not None:
            registry.keep(body.model, seconds)


async def in_room(request: Request, work: Callable[[], Awaitable[None]]) -> None:
    """It counts among the requests that wait."""
    visit = context_of(request.app).room.enter()
    try:
        await work()
    finally:
        visit.leave()
