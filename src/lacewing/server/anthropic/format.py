"""Messages as Anthropic writes them: events of a stream, or one object."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lacewing.server.blocks import BEGIN, CALL, MORE, TEXT, THOUGHTS, Block, Blocks, Step, sealed
from lacewing.server.exchange import Format
from lacewing.server.openai.types import dumps, new_id, text

if TYPE_CHECKING:
    from lacewing.assistant.deltas import Delta
    from lacewing.server.feed import Choice

_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "repetition": "max_tokens"}


def event(name: str, **fields: Any) -> str:
    """One event of a stream, with its name in the data too."""
    return f"event: {name}\ndata: {dumps({'type': name, **fields})}\n\n"


class MessageWriter(Format):
    """One answer. `most`: tokens that it may have; `omitted`: the text of thoughts is left out."""

    def __init__(self, model: str, most: int, omitted: bool = False):
        self._model, self._most, self._omitted = model, most, omitted
        self._blocks = Blocks("toolu_")

    def events(self, choice: Choice, deltas: Sequence[Delta]) -> bytes:
        parts = []
        if not choice.written:
            choice.written = True
            parts.append(event("message_start", message=self._message([], None, None, usage(choice, 0))))
        parts += map(self._told, self._blocks.push(deltas))
        if choice.end is not None:
            parts += map(self._told, self._blocks.end())
        return "".join(parts).encode()

    def last_event(self, choices: Sequence[Choice]) -> bytes:
        choice = choices[0]
        reason, stop = self._reason(choice)
        delta = {"stop_reason": reason, "stop_sequence": stop}
        return (event("message_delta", delta=delta, usage=usage(choice)) + event("message_stop")).encode()

    def whole(self, choices: Sequence[Choice]) -> bytes:
        choice = choices[0]
        for _ in self._blocks.push(choice.take()):
            pass
        content = [self._content(block) for block in self._blocks.all]
        return dumps(self._message(content, *self._reason(choice), usage(choice))).encode()

    def _message(self, content: list[dict[str, Any]], reason: str | None, stop: str | None, cost: dict[str, Any]) -> dict[str, Any]:
        return {"id": new_id("msg_"), "type": "message", "role": "assistant", "model": self._model, "content": content,
                "stop_reason": reason, "stop_sequence": stop, "stop_details": None, "container": None, "usage": cost}  # fmt: skip

    def _reason(self, choice: Choice) -> tuple[str, str | None]:
        """Why it ended, and the string that ended it, if one did."""
        stop = choice.decoder.stop_string
        if stop is not None:
            return "stop_sequence", stop
        reason = "stop" if choice.end is None or choice.end.reason is None else choice.end.reason
        stats = choice.stats
        if reason == "length" and stats is not None and stats.generated_tokens < self._most:
            return "model_context_window_exceeded", None
        return _REASONS.get(reason, "end_turn"), None

    def _told(self, step: Step) -> str:
        """One step as an event, or as the two that end thoughts."""
        block = step.block
        if step.what == BEGIN:
            return event("content_block_start", index=block.index, content_block=_empty(block))
        if step.what == MORE:
            if block.kind == THOUGHTS and self._omitted:
                return ""
            kind, name = _DELTAS[block.kind]
            delta = f'{{"type":"{kind}","{name}":{text(step.text)}}}'  # put together by hand: one every token
            data = f'{{"type":"content_block_delta","index":{block.index},"delta":{delta}}}'
            return f"event: content_block_delta\ndata: {data}\n\n"
        signed = ""
        if block.kind == THOUGHTS:
            sign = {"type": "signature_delta", "signature": self._signature(block)}
            signed = event("content_block_delta", index=block.index, delta=sign)
        return signed + event("content_block_stop", index=block.index)

    def _content(self, block: Block) -> dict[str, Any]:
        """A block that has ended."""
        if block.kind == TEXT:
            return {"type": "text", "text": block.text, "citations": None}
        if block.kind == CALL:
            return {**_empty(block), "input": block.arguments}
        return {"type": "thinking", "thinking": "" if self._omitted else block.text, "signature": self._signature(block)}

    def _signature(self, block: Block) -> str:
        """Clients keep it and send it back. It holds the thoughts where they are omitted; else it is not looked at again."""
        return sealed(block.text) if self._omitted else base64.b64encode(hashlib.sha256(block.text.encode()).digest()).decode()


_DELTAS = {TEXT: ("text_delta", "text"), CALL: ("input_json_delta", "partial_json"), THOUGHTS: ("thinking_delta", "thinking")}


def _empty(block: Block) -> dict[str, Any]:
    """A block that begins."""
    if block.kind == TEXT:
        return {"type": "text", "text": "", "citations": None}
    if block.kind == CALL:
        return {"type": "tool_use", "id": block.id, "name": block.name, "input": {}, "caller": {"type": "direct"}}
    return {"type": "thinking", "thinking": "", "signature": ""}


def usage(choice: Choice, output: int | None = None) -> dict[str, Any]:
    """`input_tokens` are those of the prompt that were run, beside those that were found in the prefix cache."""
    stats = choice.stats
    read = 0 if stats is None else stats.reused_tokens
    prompt = 0 if stats is None else stats.prompt_tokens
    generated = 0 if stats is None else stats.generated_tokens
    return {
        "input_tokens": prompt - read,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": read,
        "cache_creation": None,
        "inference_geo": None,
        "server_tool_use": None,
        "service_tier": None,
        "output_tokens": generated if output is None else output,
        "output_tokens_details": {"thinking_tokens": 0 if output is not None else choice.reasoning_tokens},
    }
