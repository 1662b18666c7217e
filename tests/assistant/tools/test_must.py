"""A model of random weights calls a tool where it must, by every format: the grammar leads it, and its answer is read back."""

import json

import pytest

import lacewing
from lacewing.assistant.options import ChatOptions
from lacewing.assistant.reply import Assistant
from lacewing.errors import GrammarError
from lacewing.options import Sampling
from lacewing.text.template import ChatTemplate
from tests.assistant.tools.templates import TEMPLATES

HELLO = [{"role": "user", "content": "Hello"}]
SCHEMA = {
    "type": "object",
    "properties": {
        "unit": {"enum": ["C", "F"]},
        "days": {"type": "integer", "minimum": 0, "maximum": 9},
        "flags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
    },
    "required": ["unit", "days"],
    "additionalProperties": False,
}


def function(name, parameters=SCHEMA, **others):
    return {"type": "function", "function": {"name": name, "parameters": parameters, **others}}


TOOLS = [function("get_weather"), function("now", {"type": "object", "properties": {}})]


@pytest.fixture(scope="module")
def model(tiny_path):
    with lacewing.load(tiny_path, backend="cpu", context=2048, threads=2, sequences=4) as model:
        yield model


def reply(model, source, seed=1, **options):
    assistant = Assistant(model.engine, model.tokenizer, ChatTemplate(source, "test"))
    sampling = Sampling(temperature=1, seed=seed, max_tokens=800, repeat_guard=0)
    answer = assistant.reply(HELLO, sampling, options=ChatOptions(**{"tools": TOOLS, **options}))
    text = "".join(answer)
    return text, answer


def check(call):
    name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
    if name == "get_weather":
        assert {"unit", "days"} <= set(arguments) <= set(SCHEMA["properties"])
        assert arguments["unit"] in "CF" and 0 <= arguments["days"] <= 9
    else:
        assert (name, arguments) == ("now", {})
    return name


@pytest.mark.parametrize("case", TEMPLATES)
def test_required(model, case):
    for seed in range(2):
        text, answer = reply(model, TEMPLATES[case], seed, tool_choice="required", parallel_tool_calls=False)
        assert text == "" and answer.finish_reason == "tool_calls" and len(answer.message["tool_calls"]) == 1
        check(answer.message["tool_calls"][0])


@pytest.mark.parametrize("case", TEMPLATES)
def test_named(model, case):
    _, answer = reply(model, TEMPLATES[case], tool_choice="now", parallel_tool_calls=False)
    assert check(answer.message["tool_calls"][0]) == "now" and answer.finish_reason == "tool_calls"


def test_thoughts_come_first_and_a_budget_ends_them(model):
    source = TEMPLATES["hermes"] + "<think>"
    text, answer = reply(model, source, tool_choice="get_weather", reasoning_budget=5, parallel_tool_calls=False)
    assert text == "" and answer.message["reasoning_content"] and check(answer.message["tool_calls"][0]) == "get_weather"


def test_what_cannot_be_made_sure_of_is_refused_before_the_answer(model):
    never = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
    with pytest.raises(GrammarError, match=r"the parameters of f: .*needs itself"):
        reply(model, TEMPLATES["hermes"], tools=[function("f", never)], tool_choice="required")
    with pytest.raises(GrammarError, match=r"the parameters of f: .*needs itself"):
        reply(model, TEMPLATES["hermes"], tools=[function("f", never, strict=True)])


@pytest.mark.parametrize("case", ["hermes", "qwen-coder", "kimi", "mistral", "llama"])
def test_tools_that_are_strict_leave_text_free(model, case):
    text, answer = reply(model, TEMPLATES[case], tools=[function("get_weather", strict=True)])
    for call in answer.message.get("tool_calls", ()):
        check(call)
    assert text or answer.message.get("tool_calls")
