"""Answers that follow a schema or a grammar, and tools."""

from __future__ import annotations

import json

import openai
import pytest

ASK = [{"role": "user", "content": "Describe a cat."}]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 20}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "cat", "schema": SCHEMA}}


def ask(client, **options):
    return client.chat.completions.create(model="tiny", messages=ASK, temperature=0, max_tokens=80, **options)


@pytest.mark.parametrize("options", [{"response_format": FORMAT}, {"extra_body": {"json_schema": SCHEMA}}])
def test_a_schema_is_followed(client, options):
    choice = ask(client, **options).choices[0]
    found = json.loads(choice.message.content)
    assert choice.finish_reason == "stop" and set(found) == {"name", "age"} and 0 <= found["age"] <= 20


def test_a_grammar_is_followed(client):
    assert ask(client, extra_body={"grammar": 'root ::= "yes" | "no"'}).choices[0].message.content in ("yes", "no")
    got = client.completions.create(model="tiny", prompt="Is it?", temperature=0, extra_body={"grammar": 'root ::= " yes" | " no"'})
    assert got.choices[0].text in (" yes", " no")


@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "not": {}}}},
        {"type": "json_schema", "json_schema": {"name": "x"}},
        {"type": "xml"},
    ],
)
def test_what_cannot_be_followed_is_refused(client, form):
    with pytest.raises(openai.BadRequestError):
        ask(client, response_format=form)


TOOL = {
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]},
}


def test_a_call_that_is_required(client):
    tools = [{"type": "function", "function": TOOL}]
    choice = ask(client, tools=tools, tool_choice="required", parallel_tool_calls=False).choices[0]
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls" and call.function.name == "weather" and call.id
    assert json.loads(call.function.arguments)["city"] in ("Rome", "Oslo")
    chunks = list(ask(client, tools=tools, tool_choice="required", parallel_tool_calls=False, stream=True))
    calls = [each for chunk in chunks for each in chunk.choices[0].delta.tool_calls or ()]
    assert calls[0].id and calls[0].function.name == "weather" and calls[0].function.arguments == ""
    assert "".join(each.function.arguments for each in calls) == call.function.arguments
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
