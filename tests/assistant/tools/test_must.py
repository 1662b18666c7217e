"""A model of random weights calls a tool where it must, by every format: the grammar leads it, and its answer is read back."""

import json

import pytest

import lacewing
from lacewing.assistant.grammar.source import Grammar
from lacewing.assistant.options import ChatOptions
from lacewing.assistant.reply import Assistant
from lacewing.assistant.tools.use import ToolUse
from lacewing.errors import GrammarError, OptionError
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


@pytest.mark.parametrize(
    "case", ["hermes", "qwen-coder", "kimi", "mistral", "llama", "llama-pythonic", "lfm2", "gemma4", "command", "granite"]
)
def test_tools_that_are_strict_leave_text_free(model, case):
    text, answer = reply(model, TEMPLATES[case], tools=[function("get_weather", strict=True)])
    for call in answer.message.get("tool_calls", ()):
        check(call)
    assert text or answer.message.get("tool_calls")


def follows(model, text, **options):
    """Whether an answer may be that text, and whether it may end there."""
    assistant = Assistant(model.engine, model.tokenizer, ChatTemplate(TEMPLATES["hermes"], "test"))
    prompt = assistant.prompt(HELLO, ChatOptions(**{"tools": TOOLS, "constraint": Grammar.regex("yes|no"), **options}))
    constraint, stops = prompt.constrain(), sorted(prompt.stop_ids)
    for token in model.tokenizer.encode(text):
        mask = constraint.mask()
        allowed = mask is None or bool(mask[token // 32] >> (token % 32) & 1)
        if not allowed or not constraint.accept(token):
            return False
    mask = constraint.mask()
    return constraint.stopped() or bool(mask[stops[0] // 32] >> (stops[0] % 32) & 1)


NOW = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
WRONG = '<tool_call>\n{"name": "get_weather", "arguments": {"unit": "K", "days": 1}}\n</tool_call>'


@pytest.mark.parametrize("strict", [False, True])
def test_an_answer_that_is_bound_may_be_a_call_instead(model, strict):
    tools = [function("get_weather", strict=strict), function("now", {"type": "object", "properties": {}}, strict=strict)]
    assert follows(model, "yes", tools=tools) and follows(model, NOW, tools=tools)
    assert not follows(model, "maybe", tools=tools) and not follows(model, WRONG, tools=tools)
    assert not follows(model, "yes" + NOW, tools=tools)
    text, answer = reply(model, TEMPLATES["hermes"], tools=tools, constraint=Grammar.regex("yes|no"), parallel_tool_calls=False)
    assert text in ("yes", "no") or (text == "" and check(answer.message["tool_calls"][0]))


def test_an_answer_that_must_be_a_call_is_no_text(model):
    assert follows(model, NOW, tool_choice="required") and not follows(model, "yes", tool_choice="required")


def test_what_a_model_cannot_bind_together_is_refused(model, monkeypatch):
    monkeypatch.setattr(ToolUse, "whole", True)  # as of harmony
    with pytest.raises(OptionError, match="leave one of them out"):
        follows(model, "yes", tools=[function("now", strict=True)])
