"""From a request with tools to the calls of an answer and on to the next prompt, by the real template, tokenizer and decoder."""

import json

import pytest

from lacewing.assistant.options import ChatOptions
from lacewing.assistant.reply import Assistant
from lacewing.assistant.tools.use import ToolUse
from lacewing.engine.sampling import Token
from lacewing.errors import OptionError, TemplateError
from lacewing.options import Sampling
from lacewing.text.template import ChatTemplate
from tests.assistant.speaking import HARMONY as HARMONY_MARKS
from tests.assistant.speaking import tokenizer_with
from tests.assistant.tools.formats import CASES, TOOLS
from tests.assistant.tools.templates import HARMONY, STEP, TEMPLATES

DEFINITIONS = TOOLS.definitions
HELLO = [{"role": "user", "content": "Hello"}]
CALL = ("get_weather", {"city": 'Rome "x"', "days": 3, "deep": {"a": [1, "b"]}, "flag": True})
OTHER = ("now", {})
LINE_BEFORE = ("hermes", "qwen-coder", "seed", "glm", "glm-4.7", "minimax", "nemotron")  # whose calls begin on a line of their own


class Engine:
    """What a prompt needs of one."""

    needs_marks, vocab_size = False, 400


class Conversation:
    """A model that says what a test wants."""

    def __init__(self, source, marks, tools=DEFINITIONS, **options):
        self.tokenizer = tokenizer_with(*marks, "<think>", "</think>")
        self.assistant = Assistant(Engine(), self.tokenizer, ChatTemplate(source, "test"))
        self.options = ChatOptions(tools=tools, **options)

    def prompt(self, messages):
        return self.tokenizer.decode(self.assistant.prompt(messages, self.options).ids, special=True)

    def answer(self, text, messages=HELLO, reason="stop"):
        """Its deltas and decoder. The text is said as markup, so that marks are control tokens."""
        prompt = self.assistant.prompt(messages, self.options)
        decoder, deltas = prompt.decode(Sampling()), []
        for token in self.tokenizer.encode_markup(text):
            deltas += decoder.push(Token(token))
            if decoder.ended:
                break
        return deltas + decoder.finish(decoder.ended or reason), decoder


def conversation(case, **options):
    marks = CASES[case][0].marks
    if case == "harmony":
        return Conversation(HARMONY, dict.fromkeys((*HARMONY_MARKS, *marks)), **options)
    return Conversation(TEMPLATES[case], marks, **options)


def calls_of(message):
    return [(each["function"]["name"], json.loads(each["function"]["arguments"])) for each in message["tool_calls"]]


@pytest.mark.parametrize("case", TEMPLATES)
@pytest.mark.parametrize("before", ["", "Let me see."])
def test_calls_and_their_way_back_into_the_prompt(case, before):
    talk, write = conversation(case), CASES[case][1]
    assert talk.assistant.format.tools.form.name == case
    made = [CALL] if CASES[case][0].one_call else [CALL, OTHER]
    lead = "\n\n" if case.startswith("dsml") else "\n" if case in LINE_BEFORE else ""
    if before and not CASES[case][2]:
        before = ""
    text = before + (lead if before else "") + write(made)
    deltas, decoder = talk.answer(text)
    assert decoder.finish_reason == "tool_calls" and decoder.message["content"] == before
    assert calls_of(decoder.message) == made
    pieces = [piece for delta in deltas for piece in delta.calls]
    assert [(piece.index, piece.name) for piece in pieces if piece.id] == [(at, name) for at, (name, _) in enumerate(made)]
    assert len(pieces) > 10 and all(piece.arguments == "" for piece in pieces if piece.id)
    assert sum(len(delta.tokens) for delta in deltas) == len(talk.tokenizer.encode_markup(text))
    results = [{"role": "tool", "tool_call_id": each["id"], "content": "r"} for each in decoder.message["tool_calls"]]
    after = talk.prompt([*HELLO, decoder.message, *results])
    assert after.startswith(talk.prompt(HELLO) + text)


def test_calls_of_step_follow_each_other_at_once():
    talk, text = Conversation(STEP, CASES["qwen-coder"][0].marks), "".join(CASES["qwen-coder"][1]([call]) for call in (CALL, OTHER))
    assert talk.assistant.format.tools.form.name == "qwen-coder"
    _, decoder = talk.answer(f"<think>\nHm.\n</think>\nLet me see.{text}")
    assert decoder.message["content"] == "Let me see." and decoder.message["reasoning_content"] == "Hm."
    assert calls_of(decoder.message) == [CALL, OTHER] and decoder.finish_reason == "tool_calls"
    assert f"Let me see.{text}<|im_end|>" in talk.prompt([*HELLO, decoder.message])


def test_harmony_and_its_way_back_into_the_prompt():
    talk, write = conversation("harmony"), CASES["harmony"][1]
    text = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant" + write([CALL])
    deltas, decoder = talk.answer(text)
    assert decoder.finish_reason == "tool_calls" and "".join(deltas) == "" and decoder.message["reasoning_content"] == "Hm."
    assert calls_of(decoder.message) == [CALL]
    after = talk.prompt([*HELLO, decoder.message, {"role": "tool", "tool_call_id": None, "content": "r"}])
    assert after.startswith(talk.prompt(HELLO) + text)


@pytest.mark.parametrize("case", [name for name in TEMPLATES if CASES[name][2]])
def test_thoughts_and_calls_in_one_stream(case):
    talk, write = conversation(case), CASES[case][1]
    for text in (f"<think>Hm.</think>\n\n{write([CALL])}", f"<think>Hm.\n{write([CALL])}"):
        deltas, decoder = talk.answer(text)
        assert "".join(deltas) == "" and "".join(delta.reasoning for delta in deltas) == "Hm."
        assert calls_of(decoder.message) == [CALL] and decoder.finish_reason == "tool_calls"


@pytest.mark.parametrize("case", [*TEMPLATES, "harmony"])
def test_a_limit_leaves_arguments_as_they_are_and_an_early_end_closes_them(case):
    talk, text = conversation(case), CASES[case][1]([CALL])
    text = text[: text.index("Rome") + 2]
    _, decoder = talk.answer(text, reason="length")
    function = decoder.message["tool_calls"][0]["function"]
    assert decoder.finish_reason == "length" and function == {"name": "get_weather", "arguments": '{"city": "Ro'}
    _, decoder = talk.answer(text)
    assert decoder.finish_reason == "tool_calls" and calls_of(decoder.message) == [("get_weather", {"city": "Ro"})]


@pytest.mark.parametrize("case", [*TEMPLATES, "harmony"])
def test_without_tools_what_looks_like_a_call_is_text(case):
    text = CASES[case][1]([CALL])
    for options in ({"tools": ()}, {"tool_choice": "none"}):
        _, decoder = conversation(case, **options).answer(text)
        assert "tool_calls" not in decoder.message and decoder.finish_reason == "stop"
    assert "get_weather" not in conversation(case, tool_choice="none").prompt(HELLO)


@pytest.mark.parametrize("case", [*TEMPLATES])
def test_one_call_where_one_is_wanted(case):
    _, decoder = conversation(case, parallel_tool_calls=False).answer(CASES[case][1]([CALL, OTHER]))
    assert calls_of(decoder.message) == [CALL] and decoder.finish_reason == "tool_calls"


def test_a_template_without_tools_is_told_in_a_message():
    source = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{{ '\\n' }}{% endfor %}"
    source += "<|im_start|>assistant{{ '\\n' }}"
    talk = Conversation(source, ())
    prompt = talk.prompt([{"role": "system", "content": "Be brief."}, *HELLO])
    assert prompt.startswith("<|im_start|>system\nBe brief.\n\nYou can call these functions:\n<tools>\n{")
    assert prompt.count('"get_weather"') == 1 and prompt.endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
    text = CASES["hermes"][1]([CALL, OTHER])
    _, decoder = talk.answer(text)
    assert calls_of(decoder.message) == [CALL, OTHER]
    results = [{"role": "tool", "tool_call_id": each["id"], "content": "r"} for each in decoder.message["tool_calls"]]
    after = talk.prompt([*HELLO, decoder.message, *results, {"role": "user", "content": "Thanks"}])
    assert after.startswith(f"{talk.prompt(HELLO)}{text}<|im_end|>\n<|im_start|>user\n<tool_response>\nr\n</tool_response>\n<tool_")
    assert after.endswith("r\n</tool_response>\nThanks<|im_end|>\n<|im_start|>assistant\n") and after.count("<|im_start|>user") == 2


def manner(source):
    return ToolUse(tokenizer_with(), ChatTemplate(source, "test")).manner


def test_what_templates_want_is_found_out():
    hermes = TEMPLATES["hermes"]
    assert vars(manner(hermes)) == {
        "told": False,
        "as_text": False,
        "write": None,
        "single": False,
        "apart": False,
        "joined": False,
        "system": True,
    }
    one = "{% for m in messages %}{% if m.tool_calls | length > 1 %}{{ raise_exception('one') }}{% endif %}{% endfor %}"
    assert manner(one + hermes).single
    dropped = hermes.replace("{{ m.content }}", "{{ m.content if not m.tool_calls }}")
    assert manner(dropped).apart and not manner(dropped).single
    both = "{% for m in messages %}{% if m.content and m.thinking %}{{ raise_exception('both') }}{% endif %}{% endfor %}"
    assert manner(both + hermes).joined
    assert manner(hermes.replace("{{ t | tojson }}", "")).told
    no_calls = manner(hermes.replace("m.tool_calls", "m.nothing"))
    assert no_calls.told and no_calls.as_text
    assert not manner("{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + hermes).system


def test_a_template_that_shows_calls_only_where_there_is_no_content():
    """As DeepSeek R1's, which asks whether it is none."""
    source = TEMPLATES["deepseek"].replace("{% if m.tool_calls %}", "{% if m.content is none %}")
    source = source.replace("{{ m.content }}", "{{ m.content or '' }}")
    talk = Conversation(source, CASES["deepseek"][0].marks)
    text = CASES["deepseek"][1]([CALL])
    _, decoder = talk.answer(text)
    assert talk.prompt([*HELLO, decoder.message]).startswith(talk.prompt(HELLO) + text)


@pytest.mark.parametrize("case", ["lfm2", "granite"])
def test_calls_are_written_as_the_model_does_for_a_template_that_has_none(case):
    """As LFM2's and Granite 3's, which show tools and results."""
    source = TEMPLATES[case].replace("m.tool_calls", "m.nothing")
    talk = Conversation(source, CASES[case][0].marks)
    assert manner(source).write is not None and talk.assistant.format.tools.form.name == case
    text = CASES[case][1]([CALL, OTHER])
    _, decoder = talk.answer(text)
    assert calls_of(decoder.message) == [CALL, OTHER]
    results = [{"role": "tool", "tool_call_id": each["id"], "content": "r"} for each in decoder.message["tool_calls"]]
    after = talk.prompt([*HELLO, decoder.message, *results])
    assert after.startswith(f"{talk.prompt(HELLO)}{text}<|im_end|>\n<|im_start|>tool\nr<|im_end|>\n")
    said = talk.prompt([*HELLO, {**decoder.message, "content": "I look."}, *results])
    assert f"I look.{text}" in said


def test_calls_of_a_conversation_are_split_where_a_template_takes_one():
    one = "{% for m in messages %}{% if m.tool_calls | length > 1 %}{{ raise_exception('one') }}{% endif %}{% endfor %}"
    talk = Conversation(one + TEMPLATES["hermes"], ())
    made = [{"id": str(at), "function": {"name": "now", "arguments": f'{{"a": {at}}}'}} for at in range(2)]
    results = [{"role": "tool", "tool_call_id": str(at), "content": f"r{at}"} for at in (1, 0)]
    prompt = talk.prompt([*HELLO, {"role": "assistant", "content": "I look.", "tool_calls": made}, *results])
    places = [prompt.index(part) for part in ("I look.", '{"a": 0}', "r0", '{"a": 1}', "r1")]
    assert places == sorted(places)


def test_what_a_user_writes_never_becomes_a_mark():
    talk = conversation("kimi")
    message = {"role": "user", "content": "<|tool_calls_section_begin|>"}
    ids = talk.assistant.prompt([message], talk.options).ids
    assert talk.tokenizer.control_tokens["<|tool_calls_section_begin|>"] not in ids


@pytest.mark.parametrize(
    ("options", "messages", "error", "told"),
    [
        ({"tools": [{"type": "function"}]}, HELLO, OptionError, r"tools\[0\]"),
        ({"tool_choice": "what"}, HELLO, OptionError, "`tool_choice`"),
        ({"tools": (), "tool_choice": "required"}, HELLO, OptionError, "there are no `tools`"),
        ({}, [*HELLO, {"role": "assistant", "tool_calls": 3}], TemplateError, r"messages\[1\]"),
    ],
)
def test_errors_come_before_the_answer(options, messages, error, told):
    with pytest.raises(error, match=told):
        conversation("hermes", **options).prompt(messages)


def test_logits_are_not_touched_where_nothing_must_be_called():
    talk = conversation("hermes")
    assert talk.assistant.prompt(HELLO, talk.options).constrain is None
