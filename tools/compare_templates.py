"""Renders chat templates with Lacewing and with transformers, and says where they differ.

    python tools/compare_templates.py FOLDER      # of *.jinja files, such as models/templates of llama.cpp

Needs transformers beside what Lacewing needs. Of each template: the format of tool calls that is found in it, how it takes tools
(`Manner`), and the conversations whose prompts differ: "!" if Lacewing refuses one, "?" if transformers does. Where calls are told
as text, or written by Lacewing since the template does not show them, prompts with tools differ on purpose.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lacewing.assistant.options import ChatOptions
from lacewing.assistant.tools.use import ToolRequest, ToolUse
from lacewing.errors import LacewingError
from lacewing.text.template import ChatTemplate

CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "The weather of a city.", "parameters": CITY}},
    {
        "type": "function",
        "function": {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}},
    },
]
TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "Bye "}]  # fmt: skip
THOUGHT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "reasoning_content": "They greet.", "content": "Hello!"},
           {"role": "user", "content": "And the weather?"}]  # fmt: skip
ARGUMENTS = {"city": 'Rome "x"', "days": 3}
CALLED = {"role": "assistant", "content": "", "reasoning_content": "I look."}
CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], bool, dict[str, Any]]] = {  # messages, whether with tools, variables
    "talk": (TALK, False, {}),
    "thinking off": (TALK, False, {"enable_thinking": False}),
    "thinking on": (THOUGHT, False, {"enable_thinking": True}),
    "tools": (TALK, True, {}),
    "a call": ([*THOUGHT, CALLED], True, {}),
}


def messages_of(given: list[dict[str, Any]], id: str, *, text: bool) -> list[dict[str, Any]]:
    """With a call and its result behind the message that calls; arguments as `text`, or as transformers wants them."""
    found = []
    for message in given:
        found.append(message)
        if message is CALLED:
            arguments = json.dumps(ARGUMENTS) if text else ARGUMENTS
            call = {"id": id, "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
            found[-1] = {**message, "tool_calls": [call]}
            found.append({"role": "tool", "tool_call_id": id, "name": "get_weather", "content": "clear"})
    return found


def ours(template: ChatTemplate, use: ToolUse, name: str) -> str | None:
    given, tools, variables = CONVERSATIONS[name]
    request = ToolRequest.of(ChatOptions(tools=TOOLS if tools else ()))
    messages = messages_of(given, use.form.past_id("abc123def", "get_weather", 0), text=True)
    try:
        return template.render(use.messages(messages, request), **use.variables(request), **variables)
    except LacewingError:
        return None


def theirs(source: str, use: ToolUse, name: str) -> str | None:
    from transformers.utils.chat_template_utils import render_jinja_template  # type: ignore[import-not-found]

    given, tools, variables = CONVERSATIONS[name]
    messages = messages_of(given, use.form.past_id("abc123def", "get_weather", 0), text=False)
    for message in messages:
        if "reasoning_content" in message:
            message["thinking"] = message["reasoning_content"]
    ends = {"bos_token": "<s>", "eos_token": "</s>"}
    try:
        texts, _ = render_jinja_template(
            [messages], tools=TOOLS if tools else None, chat_template=source, add_generation_prompt=True, **ends, **variables
        )
        return str(texts[0])
    except Exception:  # whatever a template raises
        return None


def rows(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*.jinja")):
        source = path.read_text("utf-8")
        template = ChatTemplate(source, path.stem, "<s>", "</s>", seconds=20)
        use, differ = ToolUse(None, template), []  # type: ignore[arg-type]
        for name in CONVERSATIONS:
            found, expected = ours(template, use, name), theirs(source, use, name)
            if found != expected:
                differ.append(f"{name}{'!' * (found is None)}{'?' * (expected is None)}")
        manner = [word for word in ("told", "as_text", "write", "single", "apart", "joined") if getattr(use.manner, word)]
        yield f"{path.stem}: {' '.join((use.form.name, *manner))}; {', '.join(differ) or 'equal'}"


if __name__ == "__main__":
    print(*rows(Path(sys.argv[1])), sep="\n")
