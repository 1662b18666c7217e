"""Chat completions as OpenAI writes them: chunks of a stream, or one object. Chunks are put together by hand, one every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lacewing.server.openai.logprobs import Logprobs
from lacewing.server.openai.types import Writer, dumps, reason, text

if TYPE_CHECKING:
    from lacewing.assistant.deltas import CallDelta, Delta
    from lacewing.server.feed import Choice


class ChatWriter(Writer):
    """See `Writer`. `thoughts_in_text`: thoughts are part of the content."""

    prefix, chunk, object = "chatcmpl-", "chat.completion.chunk", "chat.completion"
    thoughts_in_text = False

    def events(self, choice: Choice, deltas: Sequence[Delta]) -> bytes:
        index, parts = choice.index, []
        plain = self.top is None and not self.each_timings and choice.written and choice.end is None
        if plain and len(deltas) == 1 and deltas[0]:  # as nearly always
            return f'{self._head}{{"index":{index},"delta":{{"content":{text(deltas[0])}}},{self._rest}'.encode()
        if not choice.written:
            choice.written = True
            parts.append(self.event(index, '"delta":{"role":"assistant","content":""}'))
        for delta in deltas:
            logprobs = "null" if self.top is None else dumps(self._logprobs(choice).chat((delta,)))
            said = self._said(delta)
            if said:
                parts.append(self.event(index, f'"delta":{{{said}}}', logprobs, more=self.each(choice)))
        if choice.end is not None:
            parts.append(self.event(index, '"delta":{}', finish=text(reason(choice) or "stop"), more=self.last(choice)))
        return "".join(parts).encode()

    def _said(self, delta: Delta) -> str:
        """The inside of the JSON object that tells it."""
        if delta:
            return f'"content":{text(delta)}'
        if delta.reasoning:
            return f'"{"content" if self.thoughts_in_text else "reasoning_content"}":{text(delta.reasoning)}'
        return f'"tool_calls":{dumps([_call(each) for each in delta.calls])}' if delta.calls else ""

    def answer(self, choice: Choice) -> dict[str, Any]:
        message = dict(choice.decoder.message)
        if self.thoughts_in_text:
            message["content"] = message.pop("reasoning_content", "") + message["content"]
        if message.get("tool_calls") and not message["content"]:
            message["content"] = None
        message |= {"refusal": None, "annotations": []}  # as OpenAI always has them
        logprobs = None if self.top is None else self._logprobs(choice).chat(choice.take())
        return {"index": choice.index, "message": message, "logprobs": logprobs, "finish_reason": reason(choice)}

    def _logprobs(self, choice: Choice) -> Logprobs:
        found = self.logprobs.get(choice.index)
        if found is None:
            found = self.logprobs[choice.index] = Logprobs(self.tokenizer, self.top or 0, continuation=self.continuation)
        return found


def _call(call: CallDelta) -> dict[str, Any]:
    """The first piece of a call has its id and name and no arguments yet."""
    if call.id is None:
        return {"index": call.index, "function": {"arguments": call.arguments}}
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": call.index, "id": call.id, "type": "function", "function": function}
