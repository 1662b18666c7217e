"""What a template is given: a copy of the conversation in which every string is the user's, in the forms that templates read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lacewing.text.provenance import Arguments, Text, from_user
from lacewing.text.reasoning import THOUGHT_NAMES

Message = Mapping[str, Any]

# Known roles are trusted, as templates make control tokens of them (`<|user|>`).
_ROLES = frozenset(("system", "developer", "user", "assistant", "tool", "function", "ipython", "model"))


def for_template(messages: Sequence[Message], *, parts: bool, blank: str | None = "") -> list[dict[str, Any]]:
    """Copies of messages. `parts`: the template reads lists of parts; otherwise their texts are put together, line by line.

    As in transformers, keys whose value is None are left out, and thoughts have all their names; but `content` is "" where
    there is none, because many templates add to it, or `blank` with tool calls. ValueError or TypeError for other shapes.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise TypeError(f"a conversation must be a list of messages, not {type(messages).__name__}")
    return [_message(message, parts, blank) for message in messages]


def calls_tools(messages: Any) -> bool:
    """Whether a message of a conversation holds calls."""
    return isinstance(messages, Sequence) and any(isinstance(each, Mapping) and each.get("tool_calls") for each in messages)


def length(value: Any) -> int:
    """Characters in JSON-like data, with a few for each item."""
    if isinstance(value, dict):
        return sum(length(key) + length(inner) for key, inner in value.items())
    if isinstance(value, list):
        return sum(map(length, value))
    return len(value) + 8 if isinstance(value, str) else 8


def _message(message: Any, parts: bool, blank: str | None) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise ValueError("a message is a dict with a role and content, such as {'role': 'user', 'content': 'Hi'}")
    given = {key: value for key, value in message.items() if value is not None}
    copy: dict[str, Any] = from_user({**given, "content": _content(given.get("content", ""), parts)})
    thoughts = next((copy[name] for name in THOUGHT_NAMES if name in copy), None)
    if thoughts is not None:
        copy = {"thinking": thoughts, **copy, "reasoning_content": thoughts}
    calls = copy.get("tool_calls")
    if calls and copy["content"] == "":
        copy["content"] = blank
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function", call) if isinstance(call, dict) else None
        if isinstance(function, dict) and "arguments" in function:
            function["arguments"] = _arguments(function["arguments"])
    return {**copy, "role": str.__str__(copy["role"])} if copy["role"] in _ROLES else copy


def _content(content: Any, parts: bool) -> Any:
    if not isinstance(content, (list, tuple)):
        return content
    texts: list[str] = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) and part.get("type", "text") == "text" else part
        if not isinstance(text, str):
            raise ValueError("of the parts of a message only texts can be read, such as {'type': 'text', 'text': 'Hi'}")
        texts.append(text)
    return [{"type": "text", "text": text} for text in texts] if parts else "\n".join(texts)


def _arguments(arguments: Any) -> Any:
    """Of a tool call: parsed where they came as the JSON of an object, which is what OpenAI's API sends."""
    if not isinstance(arguments, Text):
        return arguments
    try:
        values = from_user(json.loads(str.__str__(arguments)))
    except (ValueError, RecursionError):
        return arguments
    return Arguments(values, arguments) if isinstance(values, dict) else arguments
