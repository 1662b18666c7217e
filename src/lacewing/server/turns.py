"""Messages of one role in a row as one, for templates that want turns to alternate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def joined(messages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Copies of messages with "role" and "content", text or parts of text; results of tools stay apart."""
    found: list[dict[str, Any]] = []
    for each in messages:
        if found and found[-1]["role"] == each["role"] != "tool":
            _merge(found[-1], each)
        else:
            found.append(dict(each))
    return found


def _merge(first: dict[str, Any], second: dict[str, Any]) -> None:
    role = first["role"]
    if role == "assistant":
        first["content"] += second["content"]
        thoughts = [each["reasoning_content"] for each in (first, second) if each.get("reasoning_content")]
        if thoughts:
            first["reasoning_content"] = "\n".join(thoughts)
        if "tool_calls" in second:
            first["tool_calls"] = [*first.get("tool_calls", ()), *second["tool_calls"]]
    elif role == "system" and isinstance(first["content"], str) and isinstance(second["content"], str):
        first["content"] += f"\n\n{second['content']}"
    else:
        first["content"] = [*_parts(first["content"]), *_parts(second["content"])]


def _parts(content: str | list[dict[str, str]]) -> list[dict[str, str]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def content_of(texts: list[str]) -> str | list[dict[str, str]]:
    """Texts as the content of a message: one as it is, more as parts."""
    return texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts] or ""
