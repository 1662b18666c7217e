"""What answers have in common: the frame of chunks and objects, ids, usage, timings, and the text of JSON."""

from __future__ import annotations

import json
import re
import secrets
import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, ClassVar

from lacewing import __version__
from lacewing.server.exchange import Format

if TYPE_CHECKING:
    from lacewing.engine.stats import Stats
    from lacewing.server.feed import Choice
    from lacewing.server.openai.logprobs import Logprobs
    from lacewing.text.tokenizer import Tokenizer

FINGERPRINT = f"lacewing-{__version__}"
text = encode_basestring  # a string as JSON, what is no ASCII as it is
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # made once: `json.dumps` makes one each time
_REASONS = {"repetition": "length", "cancelled": "stop"}  # words of ours that clients do not know


def new_id(prefix: str) -> str:
    """Of an answer."""
    return prefix + secrets.token_hex(12)


def is_made(id: str) -> bool:
    """Whether an id has the form of those of `new_id`, which nobody can guess."""
    return re.fullmatch(r"[a-z]+_[0-9a-f]{24}", id) is not None


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())


def reason(choice: Choice) -> str | None:
    """How a choice ended, in OpenAI's words; None: it has not."""
    end = choice.end
    if end is None or end.reason is None:
        return None
    return _REASONS.get(end.reason, end.reason)


def usage(choices: Sequence[Choice]) -> dict[str, Any]:
    """Each prompt counts once, however many answers it has; cached are those tokens that were found in the prefix cache."""
    prompts: dict[int, Stats] = {}
    generated = thoughts = 0
    for choice in choices:
        stats = choice.end.stats if choice.end is not None else None
        if stats is None:
            continue
        prompts.setdefault(choice.prompt, stats)
        generated += stats.generated_tokens
        thoughts += choice.reasoning_tokens
    prompt = sum(stats.prompt_tokens for stats in prompts.values())
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": sum(stats.reused_tokens for stats in prompts.values())},
        "completion_tokens_details": {"reasoning_tokens": thoughts},
    }


def timings(stats: Stats) -> dict[str, Any]:
    """As llama-server tells them: `prompt_n` are tokens that were run, `cache_n` those that were found in the cache."""
    read, wrote = stats.prompt_tokens - stats.reused_tokens, max(0, stats.generated_tokens - 1)
    prompt_ms, predicted_ms = 1000 * stats.prompt_seconds, 1000 * stats.generate_seconds
    return {
        "cache_n": stats.reused_tokens,
        "prompt_n": read,
        "prompt_ms": round(prompt_ms, 3),
        "prompt_per_token_ms": round(prompt_ms / read, 3) if read else 0.0,
        "prompt_per_second": round(stats.prompt_rate, 3),
        "predicted_n": stats.generated_tokens,
        "predicted_ms": round(predicted_ms, 3),
        "predicted_per_token_ms": round(predicted_ms / wrote, 3) if wrote else 0.0,
        "predicted_per_second": round(stats.generate_rate, 3),
    }


def dumps(value: Any) -> str:
    """Compact JSON."""
    return _encode(value)


@dataclass
class Writer(Format):
    """Answers as OpenAI frames them. `top`: likeliest tokens to report beside each one, None for no log-probabilities;
    `wants_usage`: a last chunk tells it; `each_timings`: every chunk has timings; `continuation`: answers go on from a text."""

    prefix: ClassVar[str]  # of ids
    chunk: ClassVar[str]  # what the chunks of a stream are called
    object: ClassVar[str]  # what a whole answer is called

    model: str
    tokenizer: Tokenizer
    top: int | None = None
    wants_usage: bool = False
    each_timings: bool = False
    continuation: bool = False
    logprobs: dict[int, Logprobs] = field(default_factory=dict)  # of each choice

    def __post_init__(self) -> None:
        self._frame = {"id": new_id(self.prefix), "object": self.chunk, "created": now(), "model": self.model}
        self._frame["system_fingerprint"] = FINGERPRINT
        self._head = f'data: {dumps(self._frame)[:-1]},"choices":['
        self._tail = "]" + (',"usage":null' if self.wants_usage else "")
        self._rest = f'"logprobs":null,"finish_reason":null}}{self._tail}}}\n\n'  # of a chunk that tells nothing else

    @abstractmethod
    def answer(self, choice: Choice) -> dict[str, Any]:
        """One of the `choices` of an answer that is not streamed."""

    def event(self, index: int, said: str, logprobs: str = "null", finish: str = "null", more: str = "") -> str:
        """A chunk. `said` is the inside of a JSON object, the others are JSON."""
        choice = f'{{"index":{index},{said},"logprobs":{logprobs},"finish_reason":{finish}}}'
        return f"{self._head}{choice}{self._tail}{more}}}\n\n"

    def each(self, choice: Choice) -> str:
        """Timings so far, where they are wanted with every chunk."""
        if not self.each_timings or choice.ticket is None:
            return ""
        return f',"timings":{dumps(timings(choice.ticket.handle.stats))}'

    def last(self, choice: Choice) -> str:
        """Timings of the whole."""
        stats = None if choice.end is None else choice.end.stats
        return "" if stats is None else f',"timings":{dumps(timings(stats))}'

    def last_event(self, choices: Sequence[Choice]) -> bytes:
        return f'{self._head}],"usage":{dumps(usage(choices))}}}\n\n'.encode() if self.wants_usage else b""

    def whole(self, choices: Sequence[Choice]) -> bytes:
        found = self._frame | {"object": self.object, "choices": list(map(self.answer, choices)), "usage": usage(choices)}
        first = choices[0].end
        if first is not None and first.stats is not None:
            found["timings"] = timings(first.stats)
        return dumps(found).encode()
