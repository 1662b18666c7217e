"""Answers that follow a schema or a grammar, and tools."""

from __future__ import annotations

import json
from typing import Literal

import openai
import pydantic
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


class Cat(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=12)
    age: int = pydantic.Field(ge=0, le=20)


def test_a_class_is_parsed(client):
    """The official client makes a strict schema of it, whole and as a stream."""
    options = {"model": "tiny", "messages": ASK, "temperature": 0, "max_tokens": 80, "response_format": Cat}
    whole = client.chat.completions.parse(**options).choices[0].message
    assert isinstance(whole.parsed, Cat) and whole.refusal is None
    with client.chat.completions.stream(**options) as stream:
        partial = [event.parsed for event in stream if event.type == "content.delta" and event.parsed]
        final = stream.get_final_completion().choices[0].message
    assert final.parsed == whole.parsed and set(partial[-1]) == {"name", "age"}


def test_an_object_that_is_cut_is_an_error_of_the_client(client):
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model="tiny", messages=ASK, max_tokens=3, response_format=Cat)


class Weather(pydantic.BaseModel):
    city: Literal["Rome", "Oslo"]


def test_arguments_are_parsed(client):
    tool = openai.pydantic_function_tool(Weather, name="weather")
    options = {"model": "tiny", "messages": ASK, "temperature": 0, "max_tokens": 80, "tools": [tool], "tool_choice": "required"}
    (whole,) = client.chat.completions.parse(**options, parallel_tool_calls=False).choices[0].message.tool_calls
    with client.chat.completions.stream(**options, parallel_tool_calls=False) as stream:
        kinds = {event.type for event in stream}
        (call,) = stream.get_final_completion().choices[0].message.tool_calls
    assert whole.function.parsed_arguments == call.function.parsed_arguments and isinstance(call.function.parsed_arguments, Weather)
    assert "tool_calls.function.arguments.delta" in kinds and "tool_calls.function.arguments.done" in kinds


def test_a_result_goes_back(client):
    """The call and what came of it as messages, as the client itself makes them."""
    tool = openai.pydantic_function_tool(Weather, name="weather")
    first = ask(client, tools=[tool], tool_choice="required", parallel_tool_calls=False).choices[0].message
    result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "rain"}
    messages = [*ASK, first.model_dump(exclude_none=True), result]
    got = client.chat.completions.create(
        model="tiny", messages=messages, temperature=0, max_tokens=12, tools=[tool], tool_choice="none"
    )
    assert got.choices[0].message.content and not got.choices[0].message.tool_calls
