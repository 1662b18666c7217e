"""POST /v1/responses: from the request to what is kept of its answer."""

from __future__ import annotations

import asyncio
import bisect
import logging
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from lacewing.assistant.prompt import Prompt
from lacewing.errors import ContextOverflowError
from lacewing.server.answers import Answers, Job
from lacewing.server.context import Context, Served
from lacewing.server.dialect import EVENTS, Dialect
from lacewing.server.events import Record
from lacewing.server.exchange import Exchange, Format
from lacewing.server.openai import errors
from lacewing.server.openai.errors import RequestError
from lacewing.server.openai.types import is_made
from lacewing.server.responses import resource
from lacewing.server.responses.database import Database, Item, StoreError
from lacewing.server.responses.format import ResponseWriter
from lacewing.server.responses.items import REFERENCE, kept, plain
from lacewing.server.responses.resource import COMPLETED, INCOMPLETE
from lacewing.server.responses.store import Store, owner
from lacewing.server.responses.types import SEALED, ResponseBody

if TYPE_CHECKING:
    from lacewing.assistant.reply import Assistant
    from lacewing.server.sse import EventStream, Send

_log = logging.getLogger("lacewing.server")
_ROOM = 1024  # tokens for the answer that a conversation is shortened for, unless a limit says less


class ResponseExchange(Exchange[ResponseBody]):
    """One response. `store`: where it is kept, None: nowhere; `streamed`: whether it is written as events."""

    prompt_field = "input"

    def __init__(self, context: Context, body: ResponseBody, record: Record, who: Hashable, store: Store | None):
        super().__init__(context, body, record, who)
        self.keeps = store is not None and body.store is not False
        self._store = store
        self._input: list[Item] = kept(body.input or [])
        self._history: list[Item] = []
        response = resource.begun(body, self.keeps)
        seals = SEALED in (body.include or ())
        self.writer = ResponseWriter(
            response,
            summarised=body.summary is not None,
            seals=seals,
            top=body.top,
            logs=bool(body.background),
            custom=body.custom,
        )
        self.dialect = Dialect(self._failure, self.writer.failed)
        self._options = body.options  # what is wrong with it is told before anything else happens

    @property
    def streamed(self) -> bool:
        """In the background always: events are kept for whoever asks."""
        return self.body.streamed or bool(self.body.background)

    async def load(self) -> None:
        """What stands before. Raises RequestError, StoreError."""
        body = self.body
        if body.previous_response_id is not None and body.conversation_id is not None:
            message = "`previous_response_id` and `conversation` exclude each other"
            raise RequestError(message, "conversation", code="invalid_value")
        if body.background and not self.keeps:
            reason = "this server keeps none (--no-store)" if self._store is None else "`store` is false"
            message = f"`background` needs a response that is kept, and {reason}"
            raise RequestError(message, "background", code="invalid_value")
        if body.previous_response_id is not None:
            self._history = await self._before(body.previous_response_id)
        if body.conversation_id is not None:
            found = None if self._store is None else await self._store.call(Database.conversation, body.conversation_id)
            if found is None:
                raise unknown("conversation", body.conversation_id)
            self._history = found[1]
        self._input = [await self._resolved(item) for item in self._input]
        if not (self._input or self._history):
            raise RequestError("you must provide `input`", "input", code="missing_required_parameter")

    async def _before(self, id: str) -> list[Item]:
        """All items up to the end of a response."""
        param = "previous_response_id"
        stored = None if self._store is None else await self._store.response(id)
        history = None if self._store is None or stored is None else await self._store.call(Database.history, id)
        if stored is None or history is None:
            raise unknown("response", id, param, 400, "previous_response_not_found")
        if stored.conversation is not None:
            message = f"response {id} belongs to conversation {stored.conversation}; go on with `conversation`"
            raise RequestError(message, param, code="invalid_value")
        if stored.owner is not None:
            raise RequestError(f"response {id} is not over yet", param, code="invalid_value")
        return history

    async def _resolved(self, item: Item) -> Item:
        """What a reference stands for. An id that a client chose counts in its own conversation only: others could guess it."""
        if item["type"] != REFERENCE:
            return item
        found = next((each for each in self._history if each["id"] == item["id"]), None)
        if found is None and self._store is not None and is_made(item["id"]):
            found = await self._store.call(Database.item, item["id"])
        if found is None:
            message = f"there is no item {item['id'][:100]!r} here; items of responses that were not stored must be sent whole"
            raise RequestError(f"`{item['where']}`: {message}", f"{item['where']}.id", code="item_not_found")
        return found

    # what is asked of the engine

    def jobs(self, served: Served) -> list[Job]:
        assistant = served.worker.assistant
        knows = "developer" in assistant.format.template.source
        messages = plain([*self._history, *self._input], self.body.instructions, knows_developer=knows)
        prompt = assistant.prompt(messages, self._options)
        if self.body.truncation == "auto":
            prompt = self._shortened(prompt, messages, assistant, served.model.spec.context)
        return [Job(prompt, self.body.sampling)]

    def _shortened(self, prompt: Prompt, messages: list[dict[str, Any]], assistant: Assistant, context: int) -> Prompt:
        """Without the oldest turns, as few as have to go; whatever else, the last turn stays."""
        most = context - min(self.body.max_output_tokens or _ROOM, _ROOM, context // 2)
        if len(prompt.ids) <= most:
            return prompt
        first = 1 if messages[0]["role"] == "system" else 0
        turns = [place for place, each in enumerate(messages) if each["role"] == "user" and place > first]

        def without(place: int) -> Prompt:
            return assistant.prompt([*messages[:first], *messages[place:]], self._options)

        if not turns:
            return prompt
        at = bisect.bisect_left(turns, True, key=lambda place: len(without(place).ids) <= most)
        return without(turns[min(at, len(turns) - 1)])

    def format(self, served: Served, answers: Answers) -> Format:
        self.writer.running(served.name, served.model.tokenizer)
        return self.writer

    # what is kept

    async def finish(self, answers: Answers) -> None:
        """Before the client is told that it is over: it may ask for what follows at once."""
        if not self.streamed:
            choice = answers.choices[0]
            self.writer.events(choice, choice.take())
        await self.save(adds=self.writer.response["status"] in (COMPLETED, INCOMPLETE))

    async def save(self, *, adds: bool = False) -> None:
        """Keep what there is now. If that fails, the response says that it is not kept."""
        if not self.keeps or self._store is None:
            return
        response = self.writer.response
        runs = None if self.writer.over else owner()
        try:
            await asyncio.shield(
                self._store.call(Database.save, response, self._input, runs, adds=adds)
            )  # whoever cancels meanwhile
        except StoreError as error:
            _log.error("response not kept", extra={"response": response["id"], "problem": str(error)})
            response["store"], self.keeps = False, False

    async def _tell(self, error: Exception, events: EventStream | None, send: Send) -> None:
        if self.body.background or (events is not None and events.started):  # somebody knows its id
            self.writer.fail(error)
            await self.save()
        await super()._tell(error, events, send)

    async def run(self, send: Send) -> None:
        """Answer without a client that could leave."""
        await self._answer(send)

    async def _answer(self, send: Send) -> None:
        try:
            await super()._answer(send)
        except asyncio.CancelledError:
            if self.body.background:
                self.writer.cancel()
                await self.save()
            raise

    def _failure(self, error: BaseException) -> Response:
        """A stream tells of a prompt that is too long as OpenAI's does, since Codex looks for it there."""
        if self.streamed and isinstance(error, ContextOverflowError):
            return Response(self.writer.failed(error), media_type=EVENTS.decode())
        return errors.response(error)


def unknown(what: str, id: str, param: str | None = None, status: int = 404, code: str = "not_found") -> RequestError:
    """There is nothing of that id."""
    message = f"there is no {what} {id[:100]!r} here: it was not stored, was deleted, or is too old"
    return RequestError(message, param or f"{what}_id", status=status, code=code)
