"""What answers have in common: ids, usage, timings, and the text of JSON."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

from lacewing import __version__

if TYPE_CHECKING:
    from lacewing.engine.stats import Stats
    from lacewing.server.feed import Choice

FINGERPRINT = f"lacewing-{__version__}"
text = encode_basestring  # a string as JSON, what is no ASCII as it is
_REASONS = {"repetition": "length", "cancelled": "stop"}  # words of ours that clients do not know


def new_id(prefix: str) -> str:
    """Of an answer."""
    return prefix + secrets.token_hex(12)


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
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
