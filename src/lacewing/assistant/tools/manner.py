"""How a template takes tools, calls and results: tried out on a small conversation, once for each template."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lacewing.assistant.tools.format import Format, Write
from lacewing.errors import TemplateError

Message = Mapping[str, Any]
Render = Callable[..., str]

BEGIN, END = "<tool_call>", "</tool_call>"
RESULT, RESULT_END = "<tool_response>", "</tool_response>"
_PROBE = {"type": "object", "properties": {"probed": {"type": "string"}}, "required": ["probed"]}
_WORDS = ("one", "two")
_USER = ({"role": "user", "content": "probe"},)
_NEXT = ({"role": "assistant", "content": "probe-done"}, {"role": "user", "content": "probe-next"})


@dataclass(frozen=True)
class Manner:
    """What must be done to messages before a template gets them.

    `told`: it does not show tools, so that a message says what they are and how they are called. `as_text`: calls and results are
    written as text. `write`: calls alone are, by this. `single`: one call in a message, with its result behind it. `apart`: text
    stands in a message of its own before calls. `joined`: with calls, thoughts and text are one. `system`: it takes a message of
    the system.
    """

    told: bool = False
    as_text: bool = False
    write: Write | None = None
    single: bool = False
    apart: bool = False
    joined: bool = False
    system: bool = True

    def messages(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Of normalised messages, those for the template."""
        found = _single(messages) if self.single else list(messages)
        found = _as_text(found) if self.as_text else found
        found = _with_calls(found, self.write) if self.write is not None else found
        return [part for message in found for part in self._parted(message)]

    def tell(self, messages: Sequence[dict[str, Any]], text: str) -> list[dict[str, Any]]:
        """With a text for the model, where instructions stand."""
        role = "system" if self.system else "user"
        place = next((at for at, each in enumerate(messages) if each.get("role") == role), None)
        if place is None or not isinstance(messages[place].get("content"), str):
            return [{"role": role, "content": text}, *messages]
        said = messages[place]["content"]
        content = f"{said}\n\n{text}" if self.system else f"{text}\n\n{said}"
        return [*messages[:place], {**messages[place], "content": content}, *messages[place + 1 :]]

    def _parted(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """A message with calls as the template takes it."""
        content, thoughts = message.get("content"), message.get("reasoning_content")
        if not message.get("tool_calls") or not content:
            return [message]
        if self.joined and thoughts and isinstance(content, str):
            return [{**message, "content": None, "reasoning_content": f"{thoughts}\n\n{content}"}]
        if self.apart:
            return [{**message, "tool_calls": None}, {**message, "content": None, "reasoning_content": None}]
        return [message]


def find(render: Render, make_id: Callable[[str, str, int], str], form: Format | None) -> Manner:
    """The manner of a template. `render` gives the text of messages (and `tools`), or raises TemplateError.

    `form`: the format that it seems to have; without one, calls are as text.
    """
    system = _shows(render, [{"role": "system", "content": "probe-system"}, *_USER], None, "probe-system")
    as_text = Manner(told=True, as_text=True, system=system)
    if form is None:
        return as_text
    tools = [_definition(f"probe_{word}") for word in _WORDS]
    ids = [make_id("", f"probe_{word}", number) for number, word in enumerate(_WORDS)]
    calls = list(map(_call, ids, _WORDS))
    results = list(map(_result, ids, _WORDS))
    told = not _shows(render, _USER, tools, "probe_one", "probe_two")
    if told and not form.told:
        return as_text

    def shows(manner: Manner, message: Message, *wanted: str, after: Sequence[dict[str, Any]] = _NEXT) -> bool:
        count = len(message["tool_calls"])
        asked: list[dict[str, Any]] = [*_USER, {"role": "assistant", **message}, *results[:count], *after]
        found = manner.messages(asked)
        words = (f"{kind}-{word}" for kind in ("argument", "result") for word in _WORDS[:count])
        return _shows(render, found, None if told else tools, *wanted, *words)

    manners = [Manner(told, system=system), Manner(told, single=True, system=system)]
    if form.write is not None:
        manners.append(Manner(told, write=form.write, system=system))
    for manner in manners:
        if shows(manner, {"content": None, "tool_calls": calls}):
            break
    else:
        return as_text
    said, apart = {"content": "probe-said", "tool_calls": calls[:1]}, replace(manner, apart=True)
    if not shows(manner, said, "probe-said", after=()) and shows(apart, said, "probe-said"):
        manner = apart
    thought = {**said, "reasoning_content": "probe-thought"}
    return manner if shows(manner, thought, after=()) else replace(manner, joined=True)


def _shows(render: Render, messages: Sequence[Message], tools: Any, *words: str) -> bool:
    try:
        text = render(messages, tools=tools)
    except TemplateError:
        return False
    return all(word in text for word in words)


def _definition(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": "Probes", "parameters": _PROBE}}


def _call(id: str, name: str) -> dict[str, Any]:
    function = {"name": f"probe_{name}", "arguments": json.dumps({"probed": f"argument-{name}"})}
    return {"id": id, "type": "function", "function": function}


def _result(id: str, name: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "name": f"probe_{name}", "content": f"result-{name}"}


def _single(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each call in a message of its own, with its results behind it."""
    found: list[dict[str, Any]] = []
    place = 0
    while place < len(messages):
        message = messages[place]
        place += 1
        calls = message.get("tool_calls") or []
        if len(calls) < 2:
            found.append(message)
            continue
        results = []
        while place < len(messages) and messages[place].get("role") == "tool":
            results.append(messages[place])
            place += 1
        for index, call in enumerate(calls):
            rest = {"content": None, "reasoning_content": None} if index else {}
            found.append({**message, **rest, "tool_calls": [call]})
            found += [each for each in results if each.get("tool_call_id") == call["id"]]
        found += [each for each in results if all(each.get("tool_call_id") != call["id"] for call in calls)]
    return found


def _as_text(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Calls and results as text, results as the user's; what the user says behind results is one message with them."""
    found: list[dict[str, Any]] = []
    for message in messages:
        role, content = message.get("role"), message.get("content")
        result = role == "tool"
        if calls := message.get("tool_calls"):
            said = content if isinstance(content, str) else ""
            written = "\n".join(f"{BEGIN}\n{_written(call['function'])}\n{END}" for call in calls)
            message = {**message, "content": f"{said}\n{written}" if said else written, "tool_calls": None}
        elif result:
            told = content if isinstance(content, str) else _joined(content)
            message = {"role": "user", "content": f"{RESULT}\n{told}\n{RESULT_END}", "result": True}
        if found and found[-1].get("result") and message.get("role") == "user" and isinstance(message.get("content"), str):
            found[-1] = {**found[-1], "content": f"{found[-1]['content']}\n{message['content']}", "result": result}
            continue
        found.append(message)
    return [{key: value for key, value in message.items() if key != "result"} for message in found]


def _with_calls(messages: Sequence[dict[str, Any]], write: Write) -> list[dict[str, Any]]:
    """Calls as text behind what is said."""
    found = []
    for message in messages:
        if calls := message.get("tool_calls"):
            said = message.get("content") if isinstance(message.get("content"), str) else ""
            text = f"{said}{write([call['function'] for call in calls])}"
            message = {key: value for key, value in {**message, "content": text}.items() if key != "tool_calls"}
        found.append(message)
    return found


def _joined(content: Any) -> str:
    """The texts of parts."""
    parts = content if isinstance(content, (list, tuple)) else ()
    return "\n".join(str(part.get("text", "")) for part in parts if isinstance(part, Mapping))


def _written(function: Mapping[str, Any]) -> str:
    return f'{{"name": {json.dumps(function["name"])}, "arguments": {function["arguments"]}}}'
