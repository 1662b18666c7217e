"""Messages of a request in content blocks, and the plain dicts that templates take."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from lacewing.server.blocks import unsealed
from lacewing.server.openai.errors import RequestError
from lacewing.server.openai.messages import MAX_MESSAGES, MAX_PARTS, Given
from lacewing.server.turns import content_of, joined

# Claude Code's first line. It is for Anthropic's bills, and another one in each request: no prompt would be found in the cache.
_BILLING = re.compile(r"\s*x-anthropic-billing-header:[^\n]*\n?")
_FAILED = "Error: "


class Source(Given):
    type: str
    media_type: str | None = None
    data: str | None = None


class Block(Given):
    """A content block; which fields it has depends on its type."""

    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | Annotated[list[Block], Field(max_length=MAX_PARTS)] | None = None
    is_error: bool | None = None
    source: Source | None = None
    title: str | None = None


class Message(Given):
    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[Block], Field(max_length=MAX_PARTS)]


System = str | Annotated[list[Block], Field(max_length=MAX_PARTS)]
Messages = Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]


def plain(system: System | None, messages: list[Message]) -> list[dict[str, Any]]:
    """For a template: system, user, assistant and tool; messages of one role in a row are one. Raises RequestError."""
    told = _told(system)
    first = [{"role": "system", "content": told}] if told else []
    return joined([*first, *(each for index, message in enumerate(messages) for each in _plain(message, f"messages[{index}]"))])


def _told(system: System | None) -> str:
    """The text of the field `system`."""
    if system is None or isinstance(system, str):
        return _BILLING.sub("", system or "", count=1) if _BILLING.match(system or "") else system or ""
    texts = [_text(block, f"system[{place}]") for place, block in enumerate(system)]
    return "\n\n".join(text for text in texts if text and not _BILLING.fullmatch(text))


def _plain(message: Message, where: str) -> Iterator[dict[str, Any]]:
    content, role = message.content, message.role
    if isinstance(content, str):
        yield {"role": role, "content": content}
    elif role == "assistant":
        yield _assistant(content, f"{where}.content")
    else:
        yield from _user(role, content, f"{where}.content")


def _user(role: str, blocks: list[Block], where: str) -> Iterator[dict[str, Any]]:
    """Results of tools as messages of their own, and the text between them."""
    texts: list[str] = []
    for place, block in enumerate(blocks):
        at = f"{where}[{place}]"
        if block.type != "tool_result":
            texts.append(_text(block, at))
            continue
        if texts:
            yield {"role": role, "content": content_of(texts)}
            texts = []
        if block.tool_use_id is None:
            raise RequestError(f"you must provide `{at}.tool_use_id`", f"{at}.tool_use_id", code="missing_required_parameter")
        yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": _result(block, at)}
    if texts or not blocks:
        yield {"role": role, "content": content_of(texts)}


def _result(block: Block, where: str) -> str:
    content = block.content or ""
    if not isinstance(content, str):
        content = "\n".join(_text(part, f"{where}.content[{place}]") for place, part in enumerate(content))
    failed = block.is_error and "error" not in content[:40].lower()  # templates have no other place for it
    return f"{_FAILED}{content}" if failed else content


def _assistant(blocks: list[Block], where: str) -> dict[str, Any]:
    texts, thoughts, calls = [], [], []
    for place, block in enumerate(blocks):
        if block.type == "thinking":
            thoughts.append(block.thinking or unsealed(block.signature or ""))
        elif block.type == "redacted_thinking":
            continue  # nobody but Anthropic can read it
        elif block.type == "tool_use":
            calls.append(_call(block, f"{where}[{place}]"))
        else:
            texts.append(_text(block, f"{where}[{place}]"))
    found: dict[str, Any] = {"role": "assistant", "content": "".join(texts)}
    if any(thoughts):
        found["reasoning_content"] = "\n".join(filter(None, thoughts))
    if calls:
        found["tool_calls"] = calls
    return found


def _call(block: Block, where: str) -> dict[str, Any]:
    for name in ("id", "name"):
        if getattr(block, name) is None:
            raise RequestError(f"you must provide `{where}.{name}`", f"{where}.{name}", code="missing_required_parameter")
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": block.input or {}}}


def _text(block: Block, where: str) -> str:
    """Of a block that is text, or a document of text. Raises RequestError for others."""
    if block.type == "document" and block.source is not None and block.source.type == "text" and block.source.data is not None:
        return f"{block.title}\n{block.source.data}" if block.title else block.source.data
    if block.type != "text":
        told = (
            f"`{where}` is of type {block.type[:40]!r}, which cannot stand here; this server reads text, no images or other files"
        )
        raise RequestError(told, f"{where}.type", code="unsupported_content")
    if block.text is None:
        raise RequestError(f"you must provide `{where}.text`", f"{where}.text", code="missing_required_parameter")
    return block.text
