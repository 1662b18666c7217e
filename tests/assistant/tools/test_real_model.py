"""A real model that can call tools: it calls one, gets the result, and answers with it."""

import json

import pytest

import lacewing

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.mark.slow
def test_a_call_and_its_result(qwen_path):
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    with lacewing.load(qwen_path, backend="cpu", context=2048) as model:
        answer = model.chat(messages, tools=[WEATHER], temperature=0, max_tokens=100)
        deltas = list(answer)
        assert "".join(deltas) == "" and answer.finish_reason == "tool_calls"
        pieces = [piece for delta in deltas for piece in delta.calls]
        assert pieces[0][2:] == ("get_weather", "") and len(pieces) > 3
        call = answer.message["tool_calls"][0]
        assert json.loads(call["function"]["arguments"])["city"] == "Paris"
        result = {"role": "tool", "tool_call_id": call["id"], "content": '{"degrees": 17, "sky": "rain"}'}
        told = "".join(model.chat([*messages, answer.message, result], tools=[WEATHER], temperature=0, max_tokens=100))
        assert "17" in told and "rain" in told
        text = "".join(model.chat(messages, tools=[WEATHER], tool_choice="none", temperature=0, max_tokens=60))
        assert text and "get_weather" not in text
