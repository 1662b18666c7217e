"""Responses with OpenAI's own client, whose types the streams have to fit."""

from __future__ import annotations

import json

import httpx
import openai
import pytest
from openai.types.responses import Response
from pydantic import BaseModel

from tests.server.responses.conftest import events

HELLO = "Write about the sea."
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather at a place",
    "parameters": {"type": "object", "properties": {"place": {"type": "string", "maxLength": 12}}, "required": ["place"]},
    "strict": False,
}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"place": "Bern"}}\n</tool_call>'


def test_an_answer_is_the_one_of_the_api(client, model):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": HELLO}]
    expected = model.chat(messages, temperature=0, max_tokens=24)
    text = "".join(expected)
    got = client.responses.create(model="tiny", input=HELLO, instructions="Be brief.", temperature=0, max_output_tokens=24)
    assert got.output_text == text and got.status == "incomplete" and got.incomplete_details.reason == "max_output_tokens"
    assert got.id.startswith("resp_") and got.object == "response" and got.store and got.model == "tiny"
    assert got.usage.input_tokens == expected.stats.prompt_tokens and got.usage.output_tokens == 24
    assert got.usage.input_tokens_details.cached_tokens == got.usage.input_tokens - 1  # the API has read it before
    assert got.usage.total_tokens == got.usage.input_tokens + 24 and got.instructions == "Be brief."
    Response.model_validate(got.model_dump(), strict=False)


def test_a_stream_makes_the_same_text(url, client):
    whole = client.responses.create(model="tiny", input=HELLO, temperature=0, max_output_tokens=24)
    found = events(url, input=HELLO, max_output_tokens=24)
    kinds = [event["type"].removeprefix("response.") for event in found]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    assert set(kinds[4:-4]) == {"output_text.delta"}
    assert "".join(event["delta"] for event in found[4:-4]) == whole.output_text == found[-4]["text"]
    last = found[-1]["response"]
    assert last["output"] == [found[-2]["item"]] and last["id"] == found[0]["response"]["id"]
    assert found[0]["response"]["status"] == "in_progress" and found[0]["response"]["output"] == []
    assert last["usage"]["output_tokens"] == 24 and {event["item_id"] for event in found[3:-2]} == {last["output"][0]["id"]}


def test_the_clients_stream_helper_reads_it(client, says):
    says(f"<think>Hm.</think>I look.{CALL}")
    with client.responses.stream(model="tiny", input=HELLO, tools=[WEATHER]) as stream:
        seen = [event.type for event in stream]
        final = stream.get_final_response()
    assert seen[-1] == "response.completed" and final.output_text == "I look."
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call"]
    assert json.loads(final.output[2].arguments) == {"place": "Bern"}


def test_thoughts_text_and_calls_are_items(url, client, says):
    says(f"<think>Let me see.</think>I look.{CALL}\n{CALL}")
    found = events(url, input=HELLO, tools=[WEATHER], max_output_tokens=200)
    added = [event["item"] for event in found if event["type"] == "response.output_item.added"]
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert [item["type"] for item in added] == ["reasoning", "message", "function_call", "function_call"]
    assert [item["id"] for item in added] == [item["id"] for item in done] and done == found[-1]["response"]["output"]
    assert added[2]["arguments"] == "" and done[2]["call_id"] != done[3]["call_id"]
    deltas = "".join(event["delta"] for event in found if event["type"] == "response.function_call_arguments.delta")
    assert deltas == done[2]["arguments"] + done[3]["arguments"]
    assert done[0]["content"] == [{"type": "reasoning_text", "text": "Let me see."}] and done[0]["summary"] == []
    assert found[-1]["type"] == "response.completed"
    assert found[-1]["response"]["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
    whole = client.responses.create(model="tiny", input=HELLO, tools=[WEATHER], max_output_tokens=200)
    assert [item.type for item in whole.output] == [item["type"] for item in added]


def test_thoughts_as_a_summary_and_sealed(url, says, client, seen):
    says("<think>A secret.</think>Yes.")
    found = events(url, input=HELLO, reasoning={"effort": "low", "summary": "auto"}, include=["reasoning.encrypted_content"])
    kinds = [event["type"] for event in found if "reasoning" in event["type"]]
    assert kinds[0] == "response.reasoning_summary_part.added" and kinds[-1] == "response.reasoning_summary_part.done"
    item = found[-1]["response"]["output"][0]
    assert item["summary"] == [{"type": "summary_text", "text": "A secret."}] and "content" not in item
    assert seen()[1].reasoning_effort == "low"
    only_sealed = {"type": "reasoning", "id": item["id"], "summary": [], "encrypted_content": item["encrypted_content"]}
    answer = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Yes."}]}
    client.responses.create(
        model="tiny", input=[{"role": "user", "content": HELLO}, only_sealed, answer, {"role": "user", "content": "?"}]
    )
    assert seen()[0][1] == {"role": "assistant", "content": "Yes.", "reasoning_content": "A secret."}


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "get_weather"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get_weather"}]},
    ],
)
def test_a_tool_that_must_be_called(client, choice, says):
    says(None)
    other = {"type": "function", "name": "other", "parameters": {"type": "object", "properties": {}}}
    tools = [WEATHER] if choice == "required" else [other, WEATHER]
    got = client.responses.create(model="tiny", input=HELLO, tools=tools, tool_choice=choice, parallel_tool_calls=False)
    (call,) = got.output
    assert call.type == "function_call" and call.name == "get_weather" and list(json.loads(call.arguments)) == ["place"]
    assert got.status == "completed" and got.tools[-1].name == "get_weather"


def test_a_schema_is_followed(client, says):
    says(None)

    class Number(BaseModel):
        small: bool

    got = client.responses.parse(model="tiny", input=HELLO, text_format=Number, temperature=0, max_output_tokens=60)
    assert got.output_parsed.small in (True, False)


def test_log_probabilities(client, url, says):
    says(None)
    include = ["message.output_text.logprobs"]
    got = client.responses.create(model="tiny", input=HELLO, temperature=0, max_output_tokens=6, top_logprobs=3, include=include)
    (part,) = got.output[0].content
    assert b"".join(bytes(each.bytes) for each in part.logprobs).decode() == part.text
    assert [len(each.top_logprobs) for each in part.logprobs] == [3] * 6
    found = events(url, input=HELLO, max_output_tokens=6, top_logprobs=3)
    told = [each for event in found if event["type"] == "response.output_text.delta" for each in event["logprobs"]]
    assert told == found[-1]["response"]["output"][0]["content"][0]["logprobs"] and len(told) == 6


def test_items_of_all_kinds_are_read(client, seen):
    client.responses.create(
        model="tiny",
        max_output_tokens=2,
        instructions="Be brief.",
        input=[
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": [{"type": "input_text", "text": "What is"}, {"type": "input_text", "text": "this?"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
            {"type": "message", "role": "assistant", "content": "I look.", "phase": "commentary"},
            {"type": "function_call", "call_id": "a", "name": "get_weather", "arguments": "{}"},
            {"type": "function_call", "call_id": "b", "name": "get_weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": "sunny"},
            {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "rain"}]},
        ],
        tools=[WEATHER],
    )
    messages, _ = seen()
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool", "tool"]
    assert messages[0]["content"] == "Be brief.\n\nBe kind." and len(messages[1]["content"]) == 2
    assert messages[2]["reasoning_content"] == "Hm." and messages[2]["content"] == "I look."
    assert [call["id"] for call in messages[2]["tool_calls"]] == ["a", "b"]
    assert [message["content"] for message in messages[3:]] == ["sunny", "rain"]


LONG = [{"role": "user" if at % 2 == 0 else "assistant", "content": f"{at} " + "word " * 900} for at in range(11)]


def test_a_conversation_that_is_too_long(client, url, seen):
    with pytest.raises(openai.BadRequestError, match="maximum context length") as told:
        client.responses.create(model="tiny", input=LONG)
    assert told.value.code == "context_length_exceeded"
    sent = {"model": "tiny", "input": LONG, "instructions": "Be brief.", "truncation": "auto", "max_output_tokens": 300}
    counted = httpx.post(f"{url}/v1/responses/input_tokens", json=sent, timeout=30).json()["input_tokens"]
    messages, _ = seen()
    assert (
        8192 - 300 - 1900 < counted <= 8192 - 300
        and messages[0]["content"] == "Be brief."
        and messages[-1]["content"].startswith("10 ")
    )
    assert [message["role"] for message in messages[:2]] == ["system", "user"] and len(messages) % 2 == 0
    found = events(url, input=LONG)  # where Codex looks for it
    assert [event["type"] for event in found] == ["response.created", "response.failed"]
    assert found[1]["response"]["error"]["code"] == "context_length_exceeded"


def test_tokens_are_counted(client):
    counted = client.responses.input_tokens.count(model="tiny", input=HELLO, instructions="Be brief.").input_tokens
    assert (
        counted
        == client.responses.create(model="tiny", input=HELLO, instructions="Be brief.", max_output_tokens=1).usage.input_tokens
    )


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({"model": None}, 400, "model", None),
        ({"model": "other"}, 404, None, "model_not_found"),
        ({"input": None}, 400, "input", "missing_required_parameter"),
        ({"input": []}, 400, "input", "missing_required_parameter"),
        ({"input": 3}, 400, "input", "invalid_value"),
        ({"input": [{"role": "user"}]}, 400, "input[0].content", "missing_required_parameter"),
        ({"input": [{"type": "message", "content": "x"}]}, 400, "input[0].role", "missing_required_parameter"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            400,
            "input[0].content[0].type",
            "unsupported_content",
        ),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, 400, "input[0].type", "unsupported_content"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, 400, "input[0].id", "item_not_found"),
        ({"input": [{"type": "function_call", "name": "f"}]}, 400, "input[0].call_id", "missing_required_parameter"),
        ({"tools": [{"type": "web_search"}]}, 400, "tools[0].type", "unsupported_tool"),
        ({"tools": [{"type": "function"}]}, 400, "tools[0].name", "missing_required_parameter"),
        ({"tool_choice": {"type": "file_search"}}, 400, "tool_choice.type", "unsupported_tool"),
        ({"tool_choice": "required"}, 400, None, None),
        ({"text": {"format": {"type": "json_schema"}}}, 400, "text.format.schema", "missing_required_parameter"),
        ({"temperature": 3}, 400, "temperature", "invalid_value"),
        ({"metadata": {"a": "b" * 513}}, 400, "metadata", "invalid_value"),
        ({"prompt": {"id": "x"}}, 400, "prompt", "unsupported_parameter"),
        ({"previous_response_id": "resp_x"}, 400, "previous_response_id", "previous_response_not_found"),
        ({"conversation": "conv_x"}, 404, "conversation_id", "not_found"),
        ({"conversation": "conv_x", "previous_response_id": "resp_x"}, 400, "conversation", "invalid_value"),
        ({"background": True, "store": False}, 400, "background", "invalid_value"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_told(url, body, status, param, code, stream):
    response = httpx.post(f"{url}/v1/responses", json={"model": "tiny", "input": HELLO, "stream": stream, **body}, timeout=30)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param), error
    assert error["message"] and code in (None, error["code"])


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b'{"input": "\xff"}', b'{"temperature": NaN}'])
def test_bodies_that_are_no_requests(url, body):
    response = httpx.post(f"{url}/v1/responses", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400 and response.json()["error"]["type"] == "invalid_request_error"
