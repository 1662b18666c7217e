"""Completions as OpenAI writes them: events of a stream, or one object. Events are put together by hand, one every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lacewing.server.exchange import Format
from lacewing.server.openai.logprobs import text_logprobs
from lacewing.server.openai.types import FINGERPRINT, dumps, new_id, now, reason, text, timings, usage

if TYPE_CHECKING:
    from lacewing.assistant.deltas import Delta
    from lacewing.server.feed import Choice
    from lacewing.text.tokenizer import Tokenizer


class TextWriter(Format):
    """`top`: likeliest tokens to report beside each one, None for no log-probabilities; `echoed`: the prompts, where wanted."""

    def __init__(
        self, model: str, tokenizer: Tokenizer, *, top: int | None, wants_usage: bool, each_timings: bool, echoed: list[str] | None
    ):
        self.id, self.created, self.model = new_id("cmpl-"), now(), model
        self._tokenizer, self._top, self._wants_usage, self._each_timings = tokenizer, top, wants_usage, each_timings
        self._echoed = echoed
        self._offsets: dict[int, int] = {}  # of each choice, in characters
        head = {"id": self.id, "object": "text_completion", "created": self.created, "model": model}
        self._head = f'data: {dumps(head | {"system_fingerprint": FINGERPRINT})[:-1]},"choices":['
        self._tail = "]" + (',"usage":null' if wants_usage else "")

    def events(self, choice: Choice, deltas: Sequence[Delta]) -> bytes:
        index, parts = choice.index, []
        if not choice.written:
            choice.written = True
            echo = self._echo(choice)
            if echo:
                parts.append(self._event(index, text(echo)))
        for delta in deltas:
            piece = delta.reasoning or str(delta)
            if piece:
                logprobs = "null" if self._top is None else dumps(self._logprobs(choice, [delta]))
                parts.append(self._event(index, text(piece), logprobs, more=self._each(choice)))
        if choice.end is not None:
            more = "" if choice.end.stats is None else f',"timings":{dumps(timings(choice.end.stats))}'
            parts.append(self._event(index, '""', "null", text(reason(choice) or "stop"), more))
        return "".join(parts).encode()

    def last_event(self, choices: Sequence[Choice]) -> bytes:
        return f'{self._head}],"usage":{dumps(usage(choices))}}}\n\n'.encode() if self._wants_usage else b""

    def whole(self, choices: Sequence[Choice]) -> bytes:
        found: dict[str, Any] = {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
            "choices": [self._choice(choice) for choice in choices],
            "usage": usage(choices),
        }
        first = choices[0].end
        if first is not None and first.stats is not None:
            found["timings"] = timings(first.stats)
        return dumps(found).encode()

    def _event(self, index: int, piece: str, logprobs: str = "null", finish: str = "null", more: str = "") -> str:
        choice = f'{{"index":{index},"text":{piece},"logprobs":{logprobs},"finish_reason":{finish}}}'
        return f"{self._head}{choice}{self._tail}{more}}}\n\n"

    def _each(self, choice: Choice) -> str:
        """Timings so far, where they are wanted with every chunk."""
        if not self._each_timings or choice.ticket is None:
            return ""
        return f',"timings":{dumps(timings(choice.ticket.handle.stats))}'

    def _choice(self, choice: Choice) -> dict[str, Any]:
        written = self._echo(choice) + choice.decoder.message["content"]
        logprobs = None if self._top is None else self._logprobs(choice, choice.take())
        return {"index": choice.index, "text": written, "logprobs": logprobs, "finish_reason": reason(choice)}

    def _echo(self, choice: Choice) -> str:
        if self._echoed is None:
            return ""
        echo = self._echoed[choice.prompt]
        self._offsets[choice.index] = len(echo)
        return echo

    def _logprobs(self, choice: Choice, deltas: Sequence[Delta]) -> dict[str, Any]:
        tokens = [token for delta in deltas for token in delta.tokens]
        found, self._offsets[choice.index] = text_logprobs(
            self._tokenizer, tokens, self._top or 0, self._offsets.get(choice.index, 0)
        )
        return found
