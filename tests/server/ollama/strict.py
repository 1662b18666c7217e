"""The form of Ollama's answers: which fields there may be, and of which types; anything else is an error."""

from __future__ import annotations

import re
from typing import Any

TOKEN = {"token": str, "logprob": float, "bytes": list}
COST = dict.fromkeys(
    ("total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration"), int
)
_COMMON = {"model": str, "created_at": str, "done": bool}
_OPTIONAL = {"done_reason": str, "logprobs": list, "dropped_messages": int, **COST}
CHAT = {**_COMMON, "message": dict}, _OPTIONAL
GENERATE = {**_COMMON, "response": str}, {**_OPTIONAL, "thinking": str, "context": list}
MESSAGE = {"role": str, "content": str}, {"thinking": str, "tool_calls": list}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")


def check(line: dict[str, Any], form: tuple[dict[str, type], dict[str, type]]) -> None:
    """Raises AssertionError."""
    _fields(line, *form)
    assert _TIME.fullmatch(line["created_at"])
    for token in line.get("logprobs", ()):
        _fields(token, TOKEN, {"top_logprobs": list})
        for each in token.get("top_logprobs", ()):
            _fields(each, TOKEN, {})
    if "message" in line:
        _fields(line["message"], *MESSAGE)
        assert line["message"]["role"] == "assistant"
    assert line["done"] == ("done_reason" in line) == all(name in line for name in COST)
    assert line.get("done_reason", "stop") in ("stop", "length", "load", "unload")


def _fields(found: dict[str, Any], needed: dict[str, type], optional: dict[str, type]) -> None:
    assert set(needed) <= set(found), set(needed) - set(found)
    for name, value in found.items():
        kind = needed.get(name) or optional.get(name)
        assert kind is not None, f"there is no field {name}"
        assert type(value) is kind or (kind is float and type(value) is int), f"{name} is {value!r}"
