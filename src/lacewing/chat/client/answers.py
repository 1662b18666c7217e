"""An answer of a server as it comes: deltas, as those of a model here."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from lacewing.assistant.deltas import Delta
from lacewing.assistant.grammar.schema import OWN_KEY
from lacewing.assistant.grammar.source import JSON_SCHEMA, REGEX, Grammar
from lacewing.assistant.options import ChatOptions
from lacewing.chat.client.connection import Connection, ServerError
from lacewing.engine.stats import Stats
from lacewing.errors import Cancelled
from lacewing.options import Sampling

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
_NAMES = {"repeat_window": "repeat_last_n"}  # of llama-server, where they differ from ours


def request(
    model: str, asked: Sequence[Mapping[str, str]] | str, sampling: Sampling, options: ChatOptions | None = None
) -> dict[str, Any]:
    """The body of a request to go on with messages, or with a text. Options that nobody has changed are the server's to choose, and
    fields that it may not know are not sent for them."""
    what = {"prompt": asked} if isinstance(asked, str) else {"messages": list(asked)}
    body: dict[str, Any] = {"model": model, **what, "stream": True, "stream_options": {"include_usage": True}}
    options = options or ChatOptions()
    for each in fields(Sampling):
        value = getattr(sampling, each.name)
        if value != getattr(_DEFAULT, each.name):
            body[_NAMES.get(each.name, each.name)] = _json(value)
    if options.reasoning_effort is not None:
        body["reasoning_effort"] = options.reasoning_effort
    if options.reasoning_budget is not None:
        body["thinking_budget_tokens"] = options.reasoning_budget
    if isinstance(options.constraint, Grammar):
        body |= _constraint(options.constraint)
    return body


def _constraint(grammar: Grammar) -> dict[str, Any]:
    """OpenAI has a field for schemas, Lacewing and llama-server one for grammars; a regex is a grammar of one rule."""
    if grammar.kind == JSON_SCHEMA:
        found = json.loads(grammar.text)
        found.pop(OWN_KEY, None)  # is for our own compiler
        schema = {"name": "answer", "schema": found, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    if grammar.kind == REGEX:
        return {"grammar": "start: /" + re.sub(r"(?<!\\)/", r"\\/", grammar.text) + "/"}
    return {"grammar": grammar.text}


_DEFAULT = Sampling()


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(token): bias for token, bias in value.items()}
    return list(value) if isinstance(value, tuple) else value


class RemoteAnswer:
    """Iterating it sends the request. `finish_reason` is "cancelled" if the caller's `cancelled` said so.

    Raises ServerError and ContextOverflowError, also in the middle.
    """

    def __init__(self, connection: Connection, body: dict[str, Any], cancelled: Callable[[], bool]):
        self.finish_reason: str | None = None
        self.stats = Stats()
        self._connection, self._body, self._cancelled = connection, body, cancelled
        self._began = self._first = 0.0
        self._pieces = 0

    def __iter__(self) -> Iterator[Delta]:
        events = self._events()
        self._began = time.monotonic()
        try:
            while True:
                delta = self._connection.wait(_next(events), self._cancelled)
                if delta is None:
                    break
                yield delta
                if self._cancelled():  # pieces may come faster than the wait for one asks
                    raise Cancelled("the answer was cancelled")
        except Cancelled:
            self.finish_reason = "cancelled"
        finally:
            self._connection.wait(events.aclose())
            self._measure()

    def close(self) -> None:
        """Nothing is left open: the iterator ends the stream itself."""

    async def _events(self) -> AsyncGenerator[Delta, None]:
        import httpx
        from httpx_sse import EventSource, SSEError

        try:
            async with self._connection.stream(CHAT if "messages" in self._body else TEXT, self._body) as response:
                self._connection.check(response, b"" if response.is_success else await response.aread())
                async with contextlib.aclosing(EventSource(response).aiter_sse()) as events:
                    async for event in events:
                        if event.data == "[DONE]":
                            break
                        for delta in self._take(event.data):
                            yield delta
        except SSEError:
            raise ServerError(f"{self._connection.address} answered without a stream of events: is it a model server?") from None
        except httpx.HTTPError as error:
            raise self._connection.unreachable(error) from None
        if self.finish_reason is None:
            raise ServerError(f"{self._connection.address} ended the answer in the middle")

    def _take(self, data: str) -> Iterator[Delta]:
        try:
            chunk = json.loads(data)
            if "error" in chunk:
                raise self._connection.refused(0, data.encode())
            self._count(chunk.get("usage") or {}, chunk.get("timings") or {})
            for choice in chunk.get("choices") or ():
                delta = choice.get("delta") or {}
                thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
                said = delta.get("content") or choice.get("text")
                if thought or said:
                    self._pieces += 1
                    self._first = self._first or time.monotonic()
                if thought:
                    yield Delta(reasoning=str(thought))
                if said:
                    yield Delta(str(said))
                if choice.get("finish_reason"):
                    self.finish_reason = str(choice["finish_reason"])
        except (ValueError, AttributeError, TypeError, OverflowError, RecursionError):
            raise ServerError(f"{self._connection.address} sent a piece of an answer that cannot be read: {data[:200]}") from None

    def _count(self, usage: dict[str, Any], timings: dict[str, Any]) -> None:
        """What the server has measured itself."""
        stats = self.stats
        if usage:
            stats.prompt_tokens = int(usage.get("prompt_tokens") or 0)
            stats.generated_tokens = int(usage.get("completion_tokens") or 0)
            stats.reused_tokens = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
        if timings:
            stats.prompt_seconds = float(timings.get("prompt_ms") or 0) / 1000
            stats.generate_seconds = float(timings.get("predicted_ms") or 0) / 1000

    def _measure(self) -> None:
        """What it has not measured, by the clock here; a piece that came counts as a token if it told no number."""
        stats, now = self.stats, time.monotonic()
        if not self._first:
            return
        stats.first_token_seconds = self._first - self._began
        stats.prompt_seconds = stats.prompt_seconds or stats.first_token_seconds
        stats.generate_seconds = stats.generate_seconds or now - self._first
        stats.generated_tokens = stats.generated_tokens or self._pieces


async def _next(events: AsyncGenerator[Delta, None]) -> Delta | None:
    return await anext(events, None)


def models(connection: Connection, cancelled: Callable[[], bool] = bool) -> list[dict[str, Any]]:
    """What `/v1/models` lists: of any server at least `id`. Raises ServerError."""
    found = connection.ask("GET", "/v1/models", cancelled=cancelled)
    with contextlib.suppress(KeyError, TypeError, AttributeError):
        listed = [each for each in found["data"] if isinstance(each.get("id"), str)]
        if listed:
            return listed
    raise ServerError(f"{connection.address} lists no models at /v1/models: is it a model server?")
