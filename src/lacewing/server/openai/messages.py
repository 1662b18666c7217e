"""Messages of a chat request: their types, and the plain dicts that templates take."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lacewing.server.openai.errors import RequestError

MAX_MESSAGES, MAX_PARTS = 1024, 4096


class Given(BaseModel):
    """Of a request; what nobody knows is left out."""

    model_config = ConfigDict(strict=True, extra="ignore")


class ContentPart(Given):
    type: str
    text: str | None = None
    refusal: str | None = None
    thinking: str | None = None


class FunctionCall(Given):
    name: str
    arguments: str | dict[str, Any] = ""


class ToolCall(Given):
    id: str | None = None
    type: str | None = "function"
    function: FunctionCall


class ChatMessage(Given):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[ContentPart], Field(max_length=MAX_PARTS)] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


Messages = Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]


def plain(messages: list[ChatMessage], *, knows_developer: bool) -> list[dict[str, Any]]:
    """For a template. `knows_developer`: it tells that role apart from the system's, as gpt-oss does. Raises RequestError."""
    return [_plain(message, index, knows_developer) for index, message in enumerate(messages)]


def _plain(message: ChatMessage, index: int, knows_developer: bool) -> dict[str, Any]:
    role = "system" if message.role == "developer" and not knows_developer else message.role
    found: dict[str, Any] = {"role": role, "content": _content(message, index)}
    thoughts = message.reasoning_content or message.reasoning
    if thoughts:
        found["reasoning_content"] = thoughts
    for name in ("name", "tool_call_id"):
        value = getattr(message, name)
        if value is not None:
            found[name] = value
    if message.tool_calls:
        found["tool_calls"] = [_call(call, place) for place, call in enumerate(message.tool_calls)]
    elif message.content is None and message.refusal is None and role in ("system", "user"):
        raise RequestError(f"`messages[{index}].content` is missing", f"messages[{index}].content", code="invalid_value")
    return found


def _content(message: ChatMessage, index: int) -> str | list[dict[str, str]]:
    """Text, or parts that are texts; a template may read either."""
    content = message.content
    if content is None:
        return message.refusal or ""
    if isinstance(content, str):
        return content
    parts = []
    for place, part in enumerate(content):
        where = f"messages[{index}].content[{place}]"
        text = {"text": part.text, "refusal": part.refusal, "input_text": part.text, "output_text": part.text}.get(part.type)
        if part.type == "thinking" and message.role == "assistant":
            continue  # thoughts of an earlier turn, as some clients send them back
        if part.type not in ("text", "refusal", "input_text", "output_text"):
            message_text = f"`{where}` is of type {part.type[:40]!r}; this server reads text only, no images, sound or files"
            raise RequestError(message_text, f"{where}.type", code="unsupported_content")
        if text is None:
            raise RequestError(f"`{where}.text` is missing", f"{where}.text", code="missing_required_parameter")
        parts.append({"type": "text", "text": text})
    return parts


def _call(call: ToolCall, place: int) -> dict[str, Any]:
    """An id is made up for a call that has none, as some clients forget it."""
    function = {"name": call.function.name, "arguments": call.function.arguments}
    return {"id": call.id or f"call_{place}", "type": "function", "function": function}
