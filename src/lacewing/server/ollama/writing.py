"""Answers as Ollama writes them: a line of JSON for each piece, the last one with what it cost; or one object."""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lacewing.server.exchange import Format
from lacewing.server.openai.logprobs import Logprobs
from lacewing.server.openai.types import dumps, reason

if TYPE_CHECKING:
    from lacewing.assistant.deltas import Delta
    from lacewing.server.events import Record
    from lacewing.server.feed import Choice
    from lacewing.text.tokenizer import Tokenizer

_BILLION = 10**9


def now() -> str:
    """As Go writes a time."""
    return timestamp(time.time())


def timestamp(seconds: float) -> str:
    """Seconds since 1970 as Go writes a time, in nanoseconds."""
    whole, rest = divmod(int(seconds * 10**6), 10**6)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:06d}000Z"


class LineWriter(Format):
    """`model`: as the request calls it; `top`: likeliest tokens beside each one, None for no log-probabilities."""

    def __init__(self, model: str, record: Record, tokenizer: Tokenizer, top: int | None, continuation: bool = False):
        self.model, self._record, self._top = model, record, top
        self.more: dict[str, Any] = {}  # of the last line
        self._logprobs = None if top is None else Logprobs(tokenizer, top, continuation=continuation)
        self._calls = 0  # that have been told

    @abstractmethod
    def piece(self, text: str, thoughts: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
        """What a line says of a piece of the answer."""

    def events(self, choice: Choice, deltas: Sequence[Delta]) -> bytes:
        lines = []
        for delta in deltas:
            calls = self._whole_calls(choice, over=False) if delta.calls else []
            self.see(delta)
            if delta or delta.reasoning or calls:
                lines.append(self._line(self.piece(str(delta), delta.reasoning, calls) | self._told([delta]), done=False))
        if choice.end is not None:
            calls = self._whole_calls(choice, over=True)
            if calls:
                lines.append(self._line(self.piece("", "", calls), done=False))
            lines.append(self._line(self.piece("", "", []) | self._cost(choice), done=True))
        return "".join(lines).encode()

    def last_event(self, choices: Sequence[Choice]) -> bytes:
        return b""

    def whole(self, choices: Sequence[Choice]) -> bytes:
        (choice,) = choices
        deltas, message = choice.take(), choice.decoder.message
        for delta in deltas:
            self.see(delta)
        said = self.piece(message["content"], message.get("reasoning_content", ""), self._whole_calls(choice, over=True))
        return self._line(said | self._told(deltas) | self._cost(choice), done=True).encode()

    def see(self, delta: Delta) -> None:
        """Of each delta, in their order."""

    def _line(self, said: dict[str, Any], done: bool) -> str:
        return dumps({"model": self.model, "created_at": now(), **said, "done": done}) + "\n"

    def _told(self, deltas: Sequence[Delta]) -> dict[str, Any]:
        found = None if self._logprobs is None else self._logprobs.chat(deltas)
        return {} if found is None else {"logprobs": found["content"]}

    def _whole_calls(self, choice: Choice, over: bool) -> list[dict[str, Any]]:
        """Calls whose arguments are all there, each once. One that was cut by a limit is left out: half an object is none."""
        calls = choice.decoder.message.get("tool_calls", [])
        found = []
        for index, call in enumerate(calls[: len(calls) if over else -1]):
            if index < self._calls:
                continue
            self._calls = index + 1
            try:
                arguments = json.loads(call["function"]["arguments"] or "{}")
            except ValueError:
                continue
            if isinstance(arguments, dict):
                function = {"index": index, "name": call["function"]["name"], "arguments": arguments}
                found.append({"id": call["id"], "function": function})
        return found

    def _cost(self, choice: Choice) -> dict[str, Any]:
        """Durations are nanoseconds. The prompt counts as a whole, with what was found in the prefix cache."""
        record, ended = self._record, time.perf_counter()
        found: dict[str, Any] = {
            "done_reason": "length" if reason(choice) == "length" else "stop",
            "total_duration": int((ended - record.began) * _BILLION),
            "load_duration": int(((record.loaded or record.began) - record.began) * _BILLION),
        }
        stats = None if choice.end is None else choice.end.stats
        if stats is not None:
            found |= {
                "prompt_eval_count": stats.prompt_tokens,
                "prompt_eval_duration": int(stats.prompt_seconds * _BILLION),
                "eval_count": stats.generated_tokens,
                "eval_duration": int(stats.generate_seconds * _BILLION),
            }
        return found | self.more
