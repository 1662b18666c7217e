"""The requests that Claude Code makes, as it was seen to make them: headers, blocks and fields of betas included."""

from __future__ import annotations

import json

import httpx
import pytest

HEADERS = {
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,effort-2025-11-24",
    "anthropic-dangerous-direct-browser-access": "true",
    "x-api-key": "none",
    "x-app": "cli",
    "user-agent": "claude-cli/2.1.177 (external, cli)",
    "x-stainless-lang": "js",
    "x-stainless-retry-count": "0",
}
CACHED = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
BASH = {
    "name": "Bash",
    "description": "Executes a given bash command.",
    "input_schema": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "command": {"description": "The command to execute", "type": "string"},
            "timeout": {"description": "Optional timeout in milliseconds", "type": "number"},
        },
        "required": ["command"],
        "additionalProperties": False,
    },
    "eager_input_streaming": True,
}
LONG_NAME = {
    "name": "mcp__plugin_of_somebody_with_a_long_name__a_tool_whose_name_is_long_as_well",
    "input_schema": {"type": "object"},
}


def body(nonce: str, messages: list[dict], **more) -> dict:
    return {
        "model": "tiny",
        "max_tokens": 32000,
        "stream": True,
        "system": [
            {"type": "text", "text": f"x-anthropic-billing-header: cc_version=2.1.177.01c; cc_entrypoint=cli; cch={nonce};"},
            {"type": "text", "text": "You are Claude Code, Anthropic's official CLI for Claude.", **CACHED},
            {"type": "text", "text": "You are an interactive agent that helps users with software engineering tasks.", **CACHED},
        ],
        "messages": messages,
        "tools": [BASH, LONG_NAME],
        "metadata": {"user_id": json.dumps({"device_id": "b42919", "account_uuid": "", "session_id": "fe79bd85"})},
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "medium"},
        **more,
    }


def ask(url: str, sent: dict) -> list[dict]:
    response = httpx.post(f"{url}/v1/messages?beta=true", json=sent, headers=HEADERS, timeout=60)
    assert response.status_code == 200, response.text
    lines = [line for line in response.text.split("\n") if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


REMINDER = "<system-reminder>\nAs you answer the user's questions, you can use the following context.\n</system-reminder>"
FIRST = {"role": "user", "content": [{"type": "text", "text": REMINDER}, {"type": "text", "text": "list the files", **CACHED}]}


@pytest.fixture
def seen(scripted, model):
    """What the assistant was asked; the prefix cache begins empty, so that what is found in it is what a test put there."""
    model.engine.forget()
    return lambda: scripted[1].seen


def test_a_turn_with_a_tool(says, seen):
    url = says('I will look.<tool_call>\n{"name": "Bash", "arguments": {"command": "ls"}}\n</tool_call>')
    first = ask(url, body("36ee5", [FIRST]))
    assert first[-2]["delta"]["stop_reason"] == "tool_use"
    starts = [event["content_block"] for event in first if event["type"] == "content_block_start"]
    assert [block["type"] for block in starts] == ["text", "tool_use"]
    call = {"type": "tool_use", "id": starts[1]["id"], "name": "Bash", "input": {"command": "ls"}}
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "a.txt\nb.txt", "is_error": False, **CACHED}
    later = [FIRST, {"role": "assistant", "content": [{"type": "text", "text": "I will look."}, call]}]
    says("There are two files.")
    second = ask(url, body("0aaa9", [*later, {"role": "user", "content": [result, {"type": "text", "text": REMINDER}]}]))
    assert second[-2]["delta"]["stop_reason"] == "end_turn"
    messages, options = seen()
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool", "user"]
    assert messages[0]["content"].startswith("You are Claude Code") and "billing" not in messages[0]["content"]
    assert options.reasoning_effort == "medium" and len(options.tools) == 2
    usage = second[0]["message"]["usage"]
    assert usage["cache_read_input_tokens"] > usage["input_tokens"]  # though the line of the bill is another one
    assert usage["cache_creation_input_tokens"] == 0


@pytest.mark.parametrize("system", ["x-anthropic-billing-header: cc_version=2; cch=1;\nBe brief.", "Be brief."])
def test_the_line_of_the_bill_is_left_out_of_a_text_too(says, seen, system):
    ask(says("Yes"), body("1", [FIRST]) | {"system": system})
    assert seen()[0][0] == {"role": "system", "content": "Be brief."}


def test_a_title_is_made_from_a_schema(says, scripted):
    url = says(None)
    schema = {"type": "object", "properties": {"title": {"type": "string", "maxLength": 20}}, "required": ["title"]}
    schema["additionalProperties"] = False
    config = {"format": {"type": "json_schema", "schema": schema}}
    sent = body("2", [FIRST], tools=[], thinking={"type": "disabled"}, output_config=config, temperature=1)
    text = "".join(event["delta"].get("text", "") for event in ask(url, sent) if event["type"] == "content_block_delta")
    assert list(json.loads(text)) == ["title"]


def test_the_first_request_asks_whether_anybody_is_there(url):
    sent = {"model": "tiny", "max_tokens": 1, "messages": [{"role": "user", "content": "quota"}], "metadata": {"user_id": "x"}}
    response = httpx.post(f"{url}/v1/messages?beta=true", json=sent, headers=HEADERS, timeout=30)
    assert response.status_code == 200 and response.json()["usage"]["output_tokens"] == 1


def test_tokens_are_counted_with_tools_alone(url):
    sent = {"model": "tiny", "messages": [{"role": "user", "content": "foo"}], "tools": [BASH]}
    response = httpx.post(f"{url}/v1/messages/count_tokens?beta=true", json=sent, headers=HEADERS, timeout=30)
    assert response.json()["input_tokens"] > 50


def test_a_failed_tool_is_told_as_failed(says, seen):
    failed = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "no such file", "is_error": True}
    call = {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {}}
    ask(says("Oh"), body("3", [FIRST, {"role": "assistant", "content": [call]}, {"role": "user", "content": [failed]}]))
    assert seen()[0][-1]["content"] == "Error: no such file"
