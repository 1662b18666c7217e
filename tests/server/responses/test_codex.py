"""The requests that Codex makes of a provider with `wire_api = "responses"`, as its source writes them."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.server.responses.conftest import parsed

HEADERS = {"authorization": "Bearer none", "accept": "text/event-stream", "originator": "codex_cli_rs", "session_id": "0196b1"}
HEADERS |= {"user-agent": "codex_cli_rs/0.147.0 (Debian 13; x86_64)", "openai-beta": "responses=experimental"}
SHELL = {
    "type": "function",
    "name": "exec_command",
    "description": "Runs a command in a PTY, returning output or a session ID for ongoing interaction.",
    "strict": False,
    "parameters": {
        "type": "object",
        "properties": {"cmd": {"type": "string"}, "yield_time_ms": {"type": "number"}, "login": {"type": "boolean"}},
        "required": ["cmd"],
        "additionalProperties": False,
    },
}
PLAN = {
    "type": "function",
    "name": "update_plan",
    "description": "Updates the task plan.",
    "strict": False,
    "parameters": {
        "type": "object",
        "properties": {"plan": {"type": "array", "items": {"type": "object", "properties": {"step": {"type": "string"}}}}},
        "required": ["plan"],
        "additionalProperties": False,
    },
}
BEGUN = [
    {
        "type": "message",
        "role": "developer",
        "content": [{"type": "input_text", "text": "<permissions instructions>read</permissions>"}],
    },
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "# AGENTS.md instructions for /src"}]},
    {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "<environment_context><cwd>/src</cwd></environment_context>"}],
    },
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "list the files"}]},
]


def body(items: list[dict], **more) -> dict:
    return {
        "model": "tiny",
        "instructions": "You are Codex, a coding agent.",
        "input": items,
        "tools": [SHELL, PLAN],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0196b1",
        "client_metadata": {"x-codex-installation-id": "0196b1"},
        **more,
    }


def ask(url: str, sent: dict) -> list[dict]:
    response = httpx.post(f"{url}/v1/responses", json=sent, headers=HEADERS, timeout=60)
    assert response.status_code == 200, response.text
    return parsed(response.text)


def given_back(item: dict) -> dict:
    """As Codex sends an item again: without its id and status, and thoughts without their text."""
    left = {name: value for name, value in item.items() if name not in ("id", "status")}
    if item["type"] == "message":
        left["content"] = [{"type": part["type"], "text": part["text"]} for part in item["content"]]
    return left


def test_a_turn_with_a_tool(url, says, seen):
    says('<think>I need to look.</think>I look.<tool_call>\n{"name": "exec_command", "arguments": {"cmd": "ls"}}\n</tool_call>')
    first = ask(url, body(BEGUN))
    items = [event["item"] for event in first if event["type"] == "response.output_item.done"]
    assert [item["type"] for item in items] == ["reasoning", "message", "function_call"]
    assert any(event["type"] == "response.reasoning_summary_text.delta" for event in first)
    done = first[-1]
    assert done["type"] == "response.completed" and done["response"]["id"] and done["response"]["usage"]["total_tokens"] > 0
    result = {"type": "function_call_output", "call_id": items[2]["call_id"], "output": "Exit code: 0\nOutput:\na.txt"}
    says("There is one file.")
    second = ask(url, body([*BEGUN, *map(given_back, items), result]))
    messages, options = seen()
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool"]
    assert messages[0]["content"].startswith("You are Codex") and "permissions" in messages[0]["content"]
    assert messages[2]["reasoning_content"] == "I need to look." and messages[2]["content"] == "I look."
    assert not options.parallel_tool_calls and options.reasoning_effort == "medium"
    usage = second[-1]["response"]["usage"]
    assert usage["input_tokens_details"]["cached_tokens"] > usage["input_tokens"] / 2
    assert second[-1]["response"]["store"] is False


def test_its_tools_of_openai_are_refused_by_name_and_with_the_remedy(url):
    search = {"type": "web_search", "external_web_access": False}
    response = httpx.post(f"{url}/v1/responses", json=body(BEGUN, tools=[SHELL, search]), headers=HEADERS, timeout=30)
    assert response.status_code == 400 and 'web_search = "disabled"' in response.json()["error"]["message"]


@pytest.mark.parametrize("more", [{"reasoning": None}, {"text": {"verbosity": "low"}}, {"service_tier": "priority"}])
def test_other_forms_of_its_requests(url, says, more):
    says("Yes.")
    assert ask(url, body(BEGUN, **more))[-1]["type"] == "response.completed"


def test_a_final_answer_in_a_schema(url, says):
    says(None)
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
    form = {"format": {"type": "json_schema", "strict": True, "schema": schema, "name": "codex_output_schema"}}
    last = ask(url, body(BEGUN, tools=[], text=form))[-1]["response"]
    assert json.loads(last["output"][-1]["content"][0]["text"])["ok"] in (True, False)


PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Use the `apply_patch` tool to edit files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "*** Begin Patch" LF hunk+ "*** End Patch" LF?'},
}


def test_a_tool_that_takes_a_text(url, says, seen):
    """As its apply_patch."""
    patch = '*** Begin Patch\n*** Add File: a.txt\n+"x"\n*** End Patch\n'
    says(f"<tool_call>\n{json.dumps({'name': 'apply_patch', 'arguments': {'input': patch}})}\n</tool_call>")
    found = ask(url, body(BEGUN, tools=[SHELL, PATCH]))
    item = found[-1]["response"]["output"][0]
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "apply_patch", patch)
    kinds = [event["type"] for event in found]
    assert "response.custom_tool_call_input.done" in kinds and "response.function_call_arguments.delta" not in kinds
    assert "".join(event["delta"] for event in found if event["type"].endswith("input.delta")) == patch
    shown = seen()[1].tools[1]["function"]
    assert "Begin Patch" in shown["description"] and list(shown["parameters"]["properties"]) == ["input"]
    says("Done.")
    result = {"type": "custom_tool_call_output", "call_id": item["call_id"], "output": "Success."}
    ask(url, body([*BEGUN, given_back(item), result], tools=[SHELL, PATCH]))
    messages = seen()[0]
    assert messages[-2]["tool_calls"][0]["function"] == {"name": "apply_patch", "arguments": {"input": patch}}
    assert messages[-1] == {"role": "tool", "tool_call_id": item["call_id"], "content": "Success."}


def test_a_tool_that_takes_a_text_and_must_be_called(url, says):
    says(None)
    tool = {"type": "custom", "name": "say"}
    last = ask(url, body(BEGUN, tools=[tool], tool_choice={"type": "custom", "name": "say"}, max_output_tokens=40))[-1]["response"]
    assert last["output"][0]["type"] == "custom_tool_call" and last["tools"] == [
        {**tool, "description": None, "format": {"type": "text"}}
    ]
