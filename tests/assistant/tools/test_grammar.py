"""Grammars of calls: what models write is in them, and nothing else; what is in them is read as the call."""

import re

import llguidance
import pytest

from lacewing.assistant.tools.definitions import checked
from lacewing.assistant.tools.formats.harmony import THOUGHTS
from lacewing.assistant.tools.grammar import calls
from lacewing.assistant.tools.lark import Thoughts
from tests.assistant.tools.formats import CASES, TOOLS
from tests.assistant.tools.test_formats import calls_of, parsed

BYTES = llguidance.LLTokenizer("byte")
CALL = ("get_weather", {"city": 'Rome "x"\n', "days": 3, "rate": 0.5, "deep": {"a": [1, "b"]}, "list": [], "flag": True})
OTHER = ("look.up-2", {"city": "Paris"})
# Those whose models write what our grammars have.
WRITTEN = [name for name in CASES if name not in ("llama-python", "llama4-python", "gemma4", "harmony-recipient-first")]


def accepts(grammar, text):
    matcher = llguidance.LLMatcher(BYTES, llguidance.LLMatcher.grammar_from_lark(grammar))
    assert not matcher.is_error(), matcher.get_error()
    data = list(text.encode())
    return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()


def grammar(case, tools=TOOLS, **options):
    return calls(CASES[case][0], list(tools.values()), {}, **options)


@pytest.mark.parametrize("case", WRITTEN)
def test_what_models_write_is_in_the_grammar(case):
    row, write, _ = CASES[case]
    many = [CALL, OTHER, ("now", {})]
    for each in many:
        assert accepts(grammar(case), write([each])), write([each])
        assert not accepts(grammar(case), write([each])[:-1])
    assert calls_of(parsed(row, [write([CALL])])) == [CALL]
    assert accepts(grammar(case), write(many)) is not row.one_call
    assert not accepts(grammar(case, parallel=False), write(many))


@pytest.mark.parametrize("case", WRITTEN)
def test_nothing_else_is_in_it(case):
    write = CASES[case][1]
    assert not accepts(grammar(case), "Hello")
    assert not accepts(grammar(case), write([("rm", {"city": "Rome"})]))
    assert not accepts(grammar(case), write([("get_weather", {})]))
    assert not accepts(grammar(case), write([("get_weather", {"city": "Rome", "days": "many"})]))
    one = checked([{"type": "function", "function": {"name": "get_weather"}}])
    assert accepts(grammar(case, one), write([("get_weather", {})]))
    assert not accepts(grammar(case, one), write([("now", {})]))


@pytest.mark.parametrize("case", WRITTEN)
def test_thoughts_stand_before_calls(case):
    text = CASES[case][1]([OTHER])
    think = {"opening": ("<think>",), "closing": ("</think>",)}
    free = grammar(case, thoughts=Thoughts(**think))
    assert accepts(free, text) and accepts(free, f"<think>\nHm, <so>.\n</think>\n\n{text}") and not accepts(free, f"Hm.{text}")
    begun = grammar(case, thoughts=Thoughts(**think, begun=True))
    assert accepts(begun, f"Hm.\n</think>\n\n{text}") and not accepts(begun, text)


class Marked:
    """A vocabulary of bytes and some control tokens, as llguidance wants it."""

    def __init__(self, marks):
        self.tokens = [bytes([each]) for each in range(256)] + [mark.encode() for mark in marks] + [b"<eos>"]
        self.special_token_ids = list(range(256, len(self.tokens)))
        self.eos_token_id, self.bos_token_id = len(self.tokens) - 1, None

    def __call__(self, text):
        return list(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize("case", WRITTEN)
def test_control_tokens_are_those_tokens(case):
    row, write, _ = CASES[case]
    think = Thoughts(("<think>",), ("</think>",), begun=True)
    tokens = {mark: place for place, mark in enumerate(dict.fromkeys((*row.marks, "</think>")), 256)}
    vocabulary = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Marked(tokens)))
    grammar = calls(row, list(TOOLS.values()), tokens, thoughts=think)

    def ids(text):
        parts = re.split("(" + "|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) + ")", text)
        return [token for part in parts for token in ([tokens[part]] if part in tokens else part.encode())]

    def accepted(ids):
        matcher = llguidance.LLMatcher(vocabulary, llguidance.LLMatcher.grammar_from_lark(grammar))
        assert not matcher.is_error(), matcher.get_error()
        return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()

    text = write([("get_weather", {"city": "Rome </p> / x", "days": 3})])
    assert accepted(ids("Hm.\n</think>\n\n" + text))
    assert accepted(list(f"Hm.</think>{text}".encode())) is False  # spelt out they are text


def test_types_and_definitions_of_parameters_between_tags():
    schema = {
        "type": "object",
        "$defs": {"unit": {"type": "object", "properties": {"name": {"enum": ["C", "F"]}}, "required": ["name"]}},
        "properties": {"kind": {"enum": ["a", "b c"]}, "unit": {"$ref": "#/$defs/unit"}, "either": {"type": ["string", "null"]}},
        "required": ["kind", "unit"],
    }
    tools = checked([{"type": "function", "function": {"name": "f", "parameters": schema}}])
    for case in ("qwen-coder", "glm"):
        written, write = grammar(case, tools), CASES[case][1]
        assert accepts(written, write([("f", {"kind": "b c", "unit": {"name": "F"}, "either": "what ever\n"})]))
        assert accepts(written, write([("f", {"kind": "a", "unit": {"name": "C"}})]))
        assert not accepts(written, write([("f", {"kind": "c", "unit": {"name": "C"}})]))
        assert not accepts(written, write([("f", {"kind": "a", "unit": {"name": "K"}})]))
        assert not accepts(written, write([("f", {"kind": "a"})]))


@pytest.mark.parametrize("case", WRITTEN)
def test_many_tools_make_one_grammar(case):
    tools = checked(
        [
            {"type": "function", "function": {"name": f"tool_{each}", "parameters": TOOLS["get_weather"].parameters}}
            for each in range(40)
        ]
    )
    assert accepts(grammar(case, tools), CASES[case][1]([("tool_39", {"city": "Rome"})]))


@pytest.mark.parametrize("case", WRITTEN)
def test_free_text_with_calls_that_follow_their_schema(case):
    row, write, around = CASES[case]
    free = grammar(case, free=True)
    final = "<|channel|>final<|message|>" if case == "harmony" else ""
    assert accepts(free, f"{final}Hello, <b>you</b>.") and accepts(free, write([CALL])) and accepts(free, write([("now", {})]))
    for name, arguments in (("rm", {}), ("get_weather", {}), ("get_weather", {"city": "Rome", "days": "many"})):
        assert not accepts(free, write([(name, arguments)]))
    assert accepts(free, write([CALL, OTHER])) is not row.one_call
    assert not accepts(grammar(case, free=True, parallel=False), write([CALL, OTHER]))
    if around:
        assert accepts(free, f"Let me see.\n{write([CALL])}") and accepts(free, f"I look.\n{write([OTHER])}\nSo.")


def test_free_text_of_harmony_after_thoughts():
    think = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
    free = grammar("harmony", free=True, thoughts=THOUGHTS)
    for text in ("<|channel|>final<|message|>Hello", CASES["harmony"][1]([CALL])):
        assert accepts(free, think + text) and accepts(free, text)
