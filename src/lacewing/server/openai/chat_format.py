"""Chat completions as OpenAI writes them: chunks of a stream, or one object. Chunks are put together by hand, one every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lacewing.server.exchange import Format
from lacewing.server.openai.logprobs import chat_logprobs
from lacewing.server.openai.types import FINGERPRINT, dumps, new_id, now, reason, text, timings, usage

if TYPE_CHECKING:
    from lacewing.assistant.deltas import Delta
    from lacewing.server.feed import Choice
    from lacewing.text.tokenizer import Tokenizer


class ChatWriter(Format):
    """`top`: likeliest tokens to report beside each one, None for no log-probabilities; `each_timings`: with every chunk."""

    def __init__(self, model: str, tokenizer: Tokenizer, *, top: int | None, wants_usage: bool, each_timings: bool):
        self.id, self.created, self.model = new_id("chatcmpl-"), now(), model
        self._tokenizer, self._top, self._wants_usage, self._each_timings = tokenizer, top, wants_usage, each_timings
        head = {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": model}
        self._head = f'data: {dumps(head | {"system_fingerprint": FINGERPRINT})[:-1]},"choices":['
        self._tail = "]" + (',"usage":null' if wants_usage else "")

    def events(self, choice: Choice, deltas: Sequence[Delta]) -> bytes:
        index, parts = choice.index, []
        if not choice.written:
            choice.written = True
            parts.append(self._event(index, '{"role":"assistant","content":""}'))
        for delta in deltas:
            logprobs = "null" if self._top is None else self._logprobs([delta])
            if delta:
                parts.append(self._event(index, f'{{"content":{text(delta)}}}', logprobs, more=self._each(choice)))
            elif delta.reasoning:
                parts.append(self._event(index, f'{{"reasoning_content":{text(delta.reasoning)}}}', logprobs))
            elif delta.calls:
                parts.append(self._event(index, dumps({"tool_calls": [_call(each) for each in delta.calls]}), logprobs))
        if choice.end is not None:
            more = "" if choice.end.stats is None else f',"timings":{dumps(timings(choice.end.stats))}'
            parts.append(self._event(index, "{}", "null", text(reason(choice) or "stop"), more))
        return "".join(parts).encode()

    def last_event(self, choices: Sequence[Choice]) -> bytes:
        return f'{self._head}],"usage":{dumps(usage(choices))}}}\n\n'.encode() if self._wants_usage else b""

    def whole(self, choices: Sequence[Choice]) -> bytes:
        found: dict[str, Any] = {
            "id": self.id,
            "object": "chat.completion",
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

    def _event(self, index: int, delta: str, logprobs: str = "null", finish: str = "null", more: str = "") -> str:
        choice = f'{{"index":{index},"delta":{delta},"logprobs":{logprobs},"finish_reason":{finish}}}'
        return f"{self._head}{choice}{self._tail}{more}}}\n\n"

    def _each(self, choice: Choice) -> str:
        """Timings so far, where they are wanted with every chunk."""
        if not self._each_timings or choice.ticket is None:
            return ""
        return f',"timings":{dumps(timings(choice.ticket.handle.stats))}'

    def _choice(self, choice: Choice) -> dict[str, Any]:
        message = dict(choice.decoder.message)
        if message.get("tool_calls") and not message.get("content"):
            message["content"] = None
        logprobs = None if self._top is None else chat_logprobs(self._tokenizer, choice.take(), self._top)
        message.setdefault("refusal", None)
        return {"index": choice.index, "message": message, "logprobs": logprobs, "finish_reason": reason(choice)}

    def _logprobs(self, deltas: Sequence[Delta]) -> str:
        return dumps(chat_logprobs(self._tokenizer, deltas, self._top or 0))


def _call(call: Any) -> dict[str, Any]:
    """The first piece of a call has its id and name and no arguments yet."""
    if call.id is not None:
        return {
            "index": call.index,
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
    return {"index": call.index, "function": {"arguments": call.arguments}}
