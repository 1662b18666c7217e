"""Items of a conversation: as a request has them, as they are kept, and as the messages that templates take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from lacewing.server.blocks import unsealed
from lacewing.server.openai.errors import RequestError
from lacewing.server.openai.messages import MAX_PARTS, Given
from lacewing.server.openai.types import new_id
from lacewing.server.responses.tools import INPUT
from lacewing.server.turns import content_of, joined

MAX_ITEMS = 4096
MESSAGE, CALL, RESULT, REASONING, REFERENCE = "message", "function_call", "function_call_output", "reasoning", "item_reference"
CUSTOM_CALL, CUSTOM_RESULT = "custom_tool_call", "custom_tool_call_output"
PREFIXES = {MESSAGE: "msg_", CALL: "fc_", RESULT: "fco_", REASONING: "rs_", CUSTOM_CALL: "ctc_", CUSTOM_RESULT: "ctco_"}  # of ids
_TEXTS = frozenset(("input_text", "output_text", "text", "summary_text", "reasoning_text"))


class Part(Given):
    type: str
    text: str | None = None
    refusal: str | None = None


Parts = Annotated[list[Part], Field(max_length=MAX_PARTS)]


class Item(Given):
    """Which fields it has depends on its type; without one it is a message, or a reference if it has an id alone."""

    type: str | None = None
    id: str | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | Parts | None = None
    phase: Literal["commentary", "final_answer"] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    input: str | None = None
    output: str | Parts | None = None
    summary: Parts | None = None
    encrypted_content: str | None = None


Items = Annotated[list[Item], Field(max_length=MAX_ITEMS)]


def kept(given: str | Sequence[Item], field: str = "input") -> list[dict[str, Any]]:
    """As they are kept and told, each with an id. Raises RequestError for what no template can be told."""
    if isinstance(given, str):
        return [_message(Item(role="user", content=given), field)]
    return [_kept(item, f"{field}[{place}]") for place, item in enumerate(given)]


def _kept(item: Item, where: str) -> dict[str, Any]:
    kind = item.type or (REFERENCE if item.role is None and item.id is not None else MESSAGE)
    make = _MAKERS.get(kind)
    if make is None:
        message = f"`{where}` is of type {kind[:40]!r}; this server reads {', '.join(PREFIXES)} and {REFERENCE}"
        raise RequestError(message, f"{where}.type", code="unsupported_content")
    return make(item, where)


def _message(item: Item, where: str) -> dict[str, Any]:
    role = _needed(item, "role", where)
    kind = "output_text" if role == "assistant" else "input_text"
    content = _needed(item, "content", where)
    parts = [kind_of(kind, text) for text in _texts(content, f"{where}.content")]
    phase = {} if item.phase is None else {"phase": item.phase}
    return {**_head(item, MESSAGE), "role": role, "status": "completed", "content": parts, **phase}


def _call(item: Item, where: str) -> dict[str, Any]:
    custom = item.type == CUSTOM_CALL
    told = {name: _needed(item, name, where) for name in ("call_id", "name", "input" if custom else "arguments")}
    return {**_head(item, CUSTOM_CALL if custom else CALL), **told, "status": "completed"}


def _result(item: Item, where: str) -> dict[str, Any]:
    call, output = _needed(item, "call_id", where), _needed(item, "output", where)
    if not isinstance(output, str):
        output = [kind_of("input_text", text) for text in _texts(output, f"{where}.output")]
    kind = CUSTOM_RESULT if item.type == CUSTOM_RESULT else RESULT
    return {**_head(item, kind), "call_id": call, "output": output, "status": "completed"}


def _reasoning(item: Item, where: str) -> dict[str, Any]:
    found = _head(item, REASONING)
    found["summary"] = [kind_of("summary_text", text) for text in _texts(item.summary or [], f"{where}.summary")]
    if item.content:
        found["content"] = [kind_of("reasoning_text", text) for text in _texts(item.content, f"{where}.content")]
    if item.encrypted_content:
        found["encrypted_content"] = item.encrypted_content
    return found


def _reference(item: Item, where: str) -> dict[str, Any]:
    return {"type": REFERENCE, "id": _needed(item, "id", where), "where": where}


_MAKERS = {MESSAGE: _message, CALL: _call, CUSTOM_CALL: _call, RESULT: _result, CUSTOM_RESULT: _result, REASONING: _reasoning,
           REFERENCE: _reference}  # fmt: skip


def _head(item: Item, kind: str) -> dict[str, Any]:
    return {"id": item.id or new_id(PREFIXES[kind]), "type": kind}


def _needed(item: Item, name: str, where: str) -> Any:
    value = getattr(item, name)
    if value is None:
        raise RequestError(f"you must provide `{where}.{name}`", f"{where}.{name}", code="missing_required_parameter")
    return value


def kind_of(kind: str, text: str, logprobs: Sequence[Any] = ()) -> dict[str, Any]:
    """A part that is a text."""
    more = {"annotations": [], "logprobs": list(logprobs)} if kind == "output_text" else {}
    return {"type": kind, "text": text, **more}


def _texts(content: str | Iterable[Part], where: str) -> Iterator[str]:
    if isinstance(content, str):
        yield content
        return
    for place, part in enumerate(content):
        text, at = part.refusal if part.type == "refusal" else part.text, f"{where}[{place}]"
        if part.type not in _TEXTS and part.type != "refusal":
            message = f"`{at}` is of type {part.type[:40]!r}; this server reads text only, no images, sound or files"
            raise RequestError(message, f"{at}.type", code="unsupported_content")
        if text is None:
            raise RequestError(
                f"you must provide `{where}[{place}].text`", f"{where}[{place}].text", code="missing_required_parameter"
            )
        yield text


def plain(items: Iterable[dict[str, Any]], instructions: str | None, *, knows_developer: bool) -> list[dict[str, Any]]:
    """For a template: what an answer is made of is one message again. `knows_developer`: it tells that role from the system's."""
    first = [{"role": "system", "content": instructions}] if instructions else []
    return joined([*first, *(_plain(item, knows_developer) for item in items)])


def _plain(item: dict[str, Any], knows_developer: bool) -> dict[str, Any]:
    kind = item["type"]
    if kind in (CALL, CUSTOM_CALL):
        arguments = item["arguments"] if kind == CALL else {INPUT: item["input"]}
        call = {"id": item["call_id"], "type": "function", "function": {"name": item["name"], "arguments": arguments}}
        return {"role": "assistant", "content": "", "tool_calls": [call]}
    if kind in (RESULT, CUSTOM_RESULT):
        output = item["output"]
        text = output if isinstance(output, str) else "\n".join(part["text"] for part in output)
        return {"role": "tool", "tool_call_id": item["call_id"], "content": text}
    if kind == REASONING:
        return {"role": "assistant", "content": "", "reasoning_content": thoughts_of(item)}
    role, texts = item["role"], [part["text"] for part in item["content"]]
    if role == "assistant":
        return {"role": role, "content": "".join(texts)}
    if role == "user":
        return {"role": role, "content": content_of(texts)}
    return {"role": "system" if role == "developer" and not knows_developer else role, "content": "\n\n".join(texts)}


def thoughts_of(item: dict[str, Any]) -> str:
    """The text of an item of thoughts, in whichever place it stands."""
    said = "\n".join(part["text"] for part in item.get("content") or item["summary"])
    return said or unsealed(item.get("encrypted_content") or "")
