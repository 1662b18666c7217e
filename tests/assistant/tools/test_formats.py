"""Every format: random calls, cut at random places, give the same events, and never lose a character."""

import json
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lacewing.assistant.tools.parsing import ARGUMENTS, END, REASONING, START, TEXT
from tests.assistant.tools.formats import CASES, TOOLS

WORDS = st.text(alphabet="abc é\n{}[]<>\"'\\/=|:,.`", max_size=20)
PLAIN = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | WORDS
DEEP = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=6)
ARGUMENTS_OF_ALL = st.fixed_dictionaries(
    {"city": WORDS},
    optional={
        "days": st.integers(-99, 10**6),
        "rate": st.floats(allow_nan=False, allow_infinity=False, width=32),
        "deep": st.dictionaries(WORDS, DEEP, max_size=3),
        "list": st.lists(DEEP, max_size=3),
        "flag": st.booleans(),
    },
)
CALLS = st.lists(
    st.tuples(st.sampled_from(["get_weather", "look.up-2"]), ARGUMENTS_OF_ALL) | st.just(("now", {})), min_size=1, max_size=3
)
CUTS = st.lists(st.integers(0, 10**6), max_size=12)
TALK = st.sampled_from(
    ["", "Let me see.", "I call <tool_call> now", "{", "a < b", 'Use {"name": "get_weather"}:', "[TOOL", "<|x|>"]
)


def cut(text, places):
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in pairwise(edges)]


def parsed(row, pieces, cut_short=False):
    parser = row.parser(TOOLS, ())
    events = [event for piece in pieces for event in parser.push(piece)] + parser.flush(cut_short)
    assert parser.held == 0
    return events


def summary(events):
    """Pieces of one kind put together."""
    found = []
    for kind, _, text, id in events:
        if kind in (TEXT, REASONING, ARGUMENTS) and found and found[-1][0] == kind:
            found[-1] = (kind, found[-1][1] + text, None)
        elif kind in (TEXT, REASONING, ARGUMENTS, START, END) and (text or kind == END):
            found.append((kind, text, id))
    return found


def calls_of(events):
    pieces = summary(events)
    names = [text for kind, text, _ in pieces if kind == START]
    arguments = [text for kind, text, _ in pieces if kind == ARGUMENTS]
    return list(zip(names, map(json.loads, arguments), strict=True))


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=25, deadline=None)
@given(calls=CALLS, before=TALK, cuts=CUTS)
def test_calls_are_found_wherever_the_text_is_cut(case, calls, before, cuts):
    row, write, text_around = CASES[case]
    if case.startswith("gemma4"):  # whose quotes have no escape: a value with them in it cannot be written
        assume('<|"|>' not in json.dumps(calls, ensure_ascii=False).replace('\\"', '"'))
    before = before if text_around else ""
    text = before + ("\n" if before else "") + write(calls)
    events = parsed(row, cut(text, cuts))
    assert "".join(event.raw for event in events) == text
    assert calls_of(events) == calls
    assert "".join(event.text for event in events if event.kind == TEXT) == before
    assert summary(events) == summary(parsed(row, list(text))) == summary(parsed(row, [text]))
    kinds = [kind for kind, _, _ in summary(events) if kind in (START, ARGUMENTS, END)]
    assert kinds == [START, ARGUMENTS, END] * len(calls)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=20, deadline=None)
@given(calls=CALLS, end=st.integers(0, 10**6), cuts=CUTS)
def test_an_early_end_leaves_whole_json_and_a_limit_what_there_is(case, calls, end, cuts):
    row, write, _ = CASES[case]
    text = write(calls)
    text = text[: end % (len(text) + 1)]
    events = parsed(row, cut(text, cuts))
    assert "".join(event.raw for event in events) == text
    calls_of(events)
    short = parsed(row, cut(text, cuts), cut_short=True)
    assert "".join(event.raw for event in short) == text
    assert summary(short) == summary(parsed(row, [text], cut_short=True))
    whole = [text for kind, text, _ in summary(events) if kind == ARGUMENTS]
    assert [text for kind, text, _ in summary(short) if kind == ARGUMENTS][: len(whole) - 1] == whole[:-1]


@pytest.mark.parametrize("case", CASES)
def test_a_call_that_a_limit_cuts_before_its_arguments_is_no_text(case):
    row, write, _ = CASES[case]
    text, parser = write([("now", {})]), row.parser(TOOLS, ())
    if not any(text.startswith(mark) for mark in parser.marks):
        return  # what begins it may begin a text as well
    begin = max(len(mark) for mark in parser.marks if text.startswith(mark))
    for end in range(begin, text.index("now")):
        assert not [text for kind, text, _ in summary(parsed(row, [text[:end]], cut_short=True)) if kind == TEXT], text[:end]


@pytest.mark.parametrize("case", CASES)
def test_the_first_characters_of_a_call_that_must_come_are_no_text(case):
    """A limit of two tokens leaves "<tool" of a call that was required; it is shown to nobody."""
    row, write, _ = CASES[case]
    text = write([("now", {})])
    for end in range(1, text.index("now")):
        for pieces in ([text[:end]], list(text[:end])):
            parser = row.parser(TOOLS, (), True)
            events = [event for piece in pieces for event in parser.push(piece)] + parser.flush(True)
            assert "".join(event.raw for event in events) == text[:end]
            assert not any(event.text for event in events if event.kind == TEXT), text[:end]


PIECES = sorted(
    {
        "<tool_call>", "</tool_call>", "<function=", "</function>", "<parameter=", "</parameter>", "<arg_key>", "</arg_key>",
        "<arg_value>", "</arg_value>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>", "<|tool_calls_section_begin|>",
        "<|tool_calls_section_end|>", "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>",
        "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>",
        "function",
        "<|tool_call_start|>[now(", "now(", "city=", "(", ")", "True", "<|START_ACTION|>", "<|END_ACTION|>", '"tool_name"',
        "<|tool_call>call:now{", "call:now", "<|tool_call>", "<tool_call|>", '<|"|>', "city:", "<|tool_call|>", "<|python_start|>",
        "```json\n", "```", "<|channel|>", "<|message|>", "<|call|>", "<|end|>", "<|start|>", "assistant", "commentary ",
        "to=functions.", "analysis", "final", "get_weather", "now", "functions.now:0", "city", '"name"', '"arguments"',
        '"parameters"', '{"name": "now", "arguments": ', "{", "}", "[", "]", ":", ",", ";", '"', "'", "\\", "\n", " ", "x", "1",
        ">", "<", "=", '<｜DSML｜function_calls>\n<｜DSML｜invoke name="now">', '<｜DSML｜parameter name="city" string="true">',
        "</｜DSML｜parameter>", "</｜DSML｜invoke>", "</｜DSML｜function_calls>", "<think>", "</think>",
    }
)  # fmt: skip
HOSTILE = st.lists(st.sampled_from(PIECES), max_size=24).map("".join)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=30, deadline=None)
@given(text=HOSTILE, cuts=CUTS, cut_short=st.booleans())
def test_hostile_text_loses_no_character_and_makes_whole_calls(case, text, cuts, cut_short):
    row = CASES[case][0]
    events = parsed(row, cut(text, cuts), cut_short)
    assert "".join(event.raw for event in events) == text
    assert summary(events) == summary(parsed(row, [text], cut_short))
    assert all(event.text in TOOLS for event in events if event.kind == START)
    if not cut_short:
        assert all(isinstance(arguments, dict) for _, arguments in calls_of(events))
    opened = 0
    for event in events:
        opened += (event.kind == START) - (event.kind == END)
        assert opened in (0, 1) and (event.kind != ARGUMENTS or opened)


@pytest.mark.parametrize("case", [name for name in CASES if not name.startswith("harmony")])
@pytest.mark.parametrize(
    "text",
    [
        "Nothing to call here, not even {}.",
        '<tool_call>\n{"name": "get_whether", "arguments": {}}\n</tool_call>',
        "<tool_call>\n<function=rm>\n</function>\n</tool_call>",
        "The tag <tool_call> opens, </tool_call> closes.",
        "[TOOL_CALLS] is a token; so is <|python_tag|>.",
        '{"name": "get_weather"}',
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>rm<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.rm:0<|tool_call_argument_begin|>{}<|tool_call_end|>",
        "  spaces   \n\n",
        '<tool_call>{"name": ',
        "<tool_call",
        "",
    ],
)
def test_what_only_looks_like_a_call_stays_text_to_the_character(case, text):
    events = parsed(CASES[case][0], list(text))
    assert "".join(event.text for event in events) == text and {event.kind for event in events} <= {TEXT}


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "now", "arguments": {}}',
        '```json\n{\n  "name": "now",\n  "arguments": {}\n}\n```',
        '```\n{"name": "now", "arguments": {}}\n```\n',
        '\n{"type": "function", "name": "now", "parameters": "{}"}',
        '<tool_call>\n{"arguments": {}, "name": "now"}\n</tool_call>',
        '<tool_call>\n{"name": "now"}\n</tool_call>',
        '<tool_call>\n{"name": "now", "arguments": null}\n</tool_call>',
        '<tool_call>\n{"name": "now", "arguments": {}}}\n</tool_call>',
        '<tool_call>\n{"name": "now", "arguments": {}\n</tool_call>',
        '<tool_call>[{"name": "now", "arguments": {}}]</tool_call>',
        '<tool_call> {"name": "now", "arguments": {}}',
    ],
)
def test_what_small_models_write_instead(text):
    for pieces in ([text], list(text)):
        events = parsed(CASES["hermes"][0], pieces)
        assert calls_of(events) == [("now", {})] and not any(event.text for event in events if event.kind == TEXT)


@pytest.mark.parametrize(
    ("case", "text", "expected"),
    [
        ("lfm2", "<|tool_call_start|>[look.up-2('Rome', days=3)]<|tool_call_end|>", ("look.up-2", {"city": "Rome", "days": 3})),
        ("lfm2", "<|tool_call_start|>now()<|tool_call_end|>", ("now", {})),
        ("lfm2", '<|tool_call_start|>[{"name": "now", "arguments": {}}]<|tool_call_end|>', ("now", {})),
        (
            "lfm2",
            "<|tool_call_start|>[get_weather(city = 'It\\'s', flag = None,)]",
            ("get_weather", {"city": "It's", "flag": None}),
        ),
        ("llama", '[get_weather(city="Rome")]', ("get_weather", {"city": "Rome"})),
        ("llama", "<|python_tag|>[now()]", ("now", {})),
        ("llama-pythonic", '{"name": "now", "parameters": {}}', ("now", {})),
        ("llama4", "<|python_start|>[now()]<|python_end|>", ("now", {})),
        ("gemma4", '<|tool_call>call:get_weather{city:"Rome",days: 3}<tool_call|>', ("get_weather", {"city": "Rome", "days": 3})),
        ("gemma4", '<|tool_call>call:get_weather{"city": "Rome"}<tool_call|>', ("get_weather", {"city": "Rome"})),
        ("gemma4", "<|tool_call>call:get_weather{city:Rome}<tool_call|>", ("get_weather", {"city": "Rome"})),
        (
            "gemma4",
            "<|tool_call>call:get_weather{deep:{a:[1,{b:true}]}}<tool_call|>",
            ("get_weather", {"deep": {"a": [1, {"b": True}]}}),
        ),
        ("command", '<|START_ACTION|>{"tool_name": "now", "parameters": {}}<|END_ACTION|>', ("now", {})),
        ("granite", '<tool_call>{"name": "now", "arguments": {}}', ("now", {})),
    ],
)
def test_other_ways_of_writing_a_call(case, text, expected):
    for pieces in ([text], list(text)):
        events = parsed(CASES[case][0], pieces)
        assert calls_of(events) == [expected] and not any(event.text for event in events if event.kind == TEXT)


@pytest.mark.parametrize("text", ["[1, 2, 3", "[link](https://x", "[get_weather] is", "[x(1)", "[", "[now"])
def test_other_lists_at_the_start_of_an_answer_are_text(text):
    parser = CASES["llama"][0].parser(TOOLS, ())
    shown = "".join(event.text for sign in text for event in parser.push(sign))
    assert text in ("[", "[now") or shown.strip()
    assert shown + "".join(event.text for event in parser.flush()) == text


@pytest.mark.parametrize(
    "text", ['{"people": [1, 2', '```json\n{"name": "Bob", "age": 3', '{"name": "now", "age": 3}', "{x", "```python\nprint()"]
)
@pytest.mark.parametrize("case", ["hermes", "llama"])
def test_other_json_at_the_start_of_an_answer_is_not_held_back(case, text):
    parser = CASES[case][0].parser(TOOLS, ())
    shown = "".join(event.text for sign in text for event in parser.push(sign))
    assert shown.strip() and text.startswith(shown)
    assert shown + "".join(event.text for event in parser.flush()) == text
