"""Calls and results of a conversation, put into one shape: whatever ids, order and names they came with."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lacewing.errors import TemplateError
from lacewing.options import shown_value

Message = Mapping[str, Any]
Ids = Callable[
    [str, str, int], str
]  # of the id that came ("" if none did), the tool and the number of the call: the id that is written

_SHORT = re.compile(r"[A-Za-z0-9]{9}")
_COUNTED = re.compile(r"functions\..+:[0-9]+")
_CALL_KEYS = frozenset(("tool_calls", "function_call"))
_RESULT_ROLES = ("tool", "function")


def any_id(given: str, name: str, number: int) -> str:
    """As it came, or one by the call's number."""
    return given or f"call_{number}"


def short_id(given: str, name: str, number: int) -> str:
    """9 letters and digits, which Mistral's templates insist on; the same for the same id."""
    return given if _SHORT.fullmatch(given) else hashlib.sha256(any_id(given, name, number).encode()).hexdigest()[:9]


def counted_id(given: str, name: str, number: int) -> str:
    """As Kimi names its calls."""
    return given if _COUNTED.fullmatch(given) else f"functions.{name}:{number}"


def concerns(message: Message) -> bool:
    """Whether a message has to do with calls."""
    return isinstance(message, Mapping) and (message.get("role") in _RESULT_ROLES or bool(_CALL_KEYS.intersection(message)))


def normalised(messages: Sequence[Message], ids: Ids = any_id) -> list[dict[str, Any]]:
    """Copies of messages in which every call has an id, a name and arguments, and results stand behind their calls, in their order.

    A result belongs to the call of its id; one whose id is missing or unknown to the first call that has none, if there is one of
    its tool's. The name of the tool is added to it. The older `function_call` and role "function" become calls and results.
    Raises TemplateError for calls that are none.
    """
    found: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []  # of the last message that has any
    results: list[dict[str, Any]] = []  # since the last other message
    number = 0
    for place, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise TemplateError(f"messages[{place}] is no message but {shown_value(message)}")
        copy = dict(message)
        if copy.get("role") in _RESULT_ROLES:
            results.append(copy)
            continue
        found += _answers(results, calls)
        results = []
        made = _calls(copy, place)
        for call in made:
            call["given"] = call["id"]
            call["id"] = ids(call["id"], call["function"]["name"], number)
            number += 1
        for key in _CALL_KEYS:
            copy.pop(key, None)
        if made:
            calls = made
            copy["tool_calls"] = [{key: call[key] for key in ("id", "type", "function")} for call in made]
        found.append(copy)
    return found + _answers(results, calls)


def _answers(results: Sequence[dict[str, Any]], calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results in the order of their calls, with ids and names; those that answer none are behind the others."""
    of: dict[int, dict[str, Any]] = {}  # by the place of a result
    for matches in (_same_id, _same_name, _any_call):
        for place, result in enumerate(results):
            left = [call for call in calls if not call.get("answered")]
            call = next((each for each in left if place not in of and matches(result, each)), None)
            if call is not None:
                of[place] = call
                call["answered"] = True
    told = [_result(result, of.get(place)) for place, result in enumerate(results)]
    order = {id(call): number for number, call in enumerate(calls)}
    return [told[place] for place in sorted(range(len(told)), key=lambda at: order[id(of[at])] if at in of else len(calls))]


def _same_id(result: Message, call: Message) -> bool:
    return bool(call["given"]) and result.get("tool_call_id") == call["given"]


def _same_name(result: Message, call: Message) -> bool:
    return bool(result.get("name") == call["function"]["name"])


def _any_call(result: Message, call: Message) -> bool:
    return True


def _result(message: dict[str, Any], call: Message | None) -> dict[str, Any]:
    content, id = message.get("content"), message.get("tool_call_id")
    if isinstance(content, Mapping) or (content is not None and not isinstance(content, (str, list, tuple))):
        content = json.dumps(content, ensure_ascii=False, default=str)
    bare = {key: value for key, value in message.items() if key not in _CALL_KEYS}
    told = {**bare, "role": "tool", "content": content, "tool_call_id": id if isinstance(id, str) else ""}
    return told if call is None else {**told, "tool_call_id": call["id"], "name": call["function"]["name"]}


def _calls(message: Message, place: int) -> list[dict[str, Any]]:
    """The calls of a message, each a copy with "id" ("" if it has none), "type" and "function"."""
    calls = message.get("tool_calls")
    if calls is None and isinstance(message.get("function_call"), Mapping):
        calls = [{"function": message["function_call"]}]
    if calls is None:
        return []
    if not isinstance(calls, (list, tuple)):
        raise TemplateError(f"messages[{place}].tool_calls must be a list of calls, it is {type(calls).__name__}")
    return [_call(call, f"messages[{place}].tool_calls[{index}]") for index, call in enumerate(calls)]


def _call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str) or not name:
        raise TemplateError(f"{where} needs a function with a name, such as {{'function': {{'name': 'f', 'arguments': '{{}}'}}}}")
    arguments = function.get("arguments")
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        arguments = "{}"
    elif not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False, default=str)
    id = call.get("id")
    return {
        "id": id if isinstance(id, str) else "",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
