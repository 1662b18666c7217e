import pytest

from lacewing.text.lint import lint, markup_of, stops_of
from lacewing.text.template import NAMES, ChatTemplate
from tests.text import vocabularies as v

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


@pytest.fixture(scope="module")
def tokenizer():
    return v.tokenizer(v.byte_level())


def findings(source, tokenizer):
    return lint(ChatTemplate(source, "test", "<|im_start|>", "<|im_end|>"), tokenizer)


def test_a_good_template(tokenizer):
    assert findings(CHATML + PROMPT, tokenizer) == []
    assert markup_of(ChatTemplate(CHATML, "x"), tokenizer).stop == "<|im_end|>"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (CHATML, "ignores add_generation_prompt"),
        (CHATML.replace("im_end", "eot"), "the stop token <|eot|> is missing"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}" + PROMPT, "nothing marks the end"),
        ("<|im_start|><|im_start|>" + CHATML + PROMPT, "twice at the start"),
        ("{% if 'x' in messages[0].content %}{% endif %}" + CHATML + PROMPT, r"condition \(line 1\)"),
        ("{{ 1 if messages[0]['content'] == '' }}" + CHATML + PROMPT, "used in a condition"),
        ("{{ messages.nothing.at_all }}", "cannot be rendered"),
        (
            "{% if messages[0].role == 'system' %}{% set messages = messages[1:] %}{% endif %}" + CHATML + PROMPT,
            "leaves the system",
        ),
        (
            "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHATML + PROMPT,
            "refuses a system message",
        ),
        ("{{ messages[0].content }}<|im_end|>" + PROMPT, "leaves messages out"),
        ("{% if", "cannot be rendered"),
    ],
)
def test_findings(source, problem, tokenizer):
    assert any(__import__("re").search(problem, line) for line in findings(source, tokenizer)), findings(source, tokenizer)


@pytest.mark.parametrize("test", ["messages[0].content is string", "messages[0].content", "not messages[0].content is none"])
def test_type_tests_are_fine(test, tokenizer):
    assert findings("{% if " + test + " %}{% endif %}" + CHATML + PROMPT, tokenizer) == []
    assert findings("{% if " + test + " and true %}{% endif %}" + CHATML + PROMPT, tokenizer) == []


@pytest.mark.parametrize("name", NAMES)
def test_named_templates(name, tokenizer):
    ids, strings = stops_of(ChatTemplate.named(name, tokenizer), tokenizer)
    assert ids >= tokenizer.stop_ids
    expected = {
        "llama3": ("<|eot_id|>",),
        "gemma": ("<end_of_turn>",),
        "phi3": ("<|end|>",),
        "deepseek": ("<｜end▁of▁sentence｜>",),
    }
    assert strings == (expected | {"gpt-oss": ("<|return|>", "<|call|>")}).get(name, ())
