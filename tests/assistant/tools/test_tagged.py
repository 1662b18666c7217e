"""Values that stand between tags as text become JSON of the types that the schema allows."""

import json

import pytest

from lacewing.assistant.tools.definitions import TYPES
from lacewing.assistant.tools.parsing import ARGUMENTS, START
from lacewing.assistant.tools.tagged import as_json
from tests.assistant.tools.formats import CASES, TOOLS

EVERY = frozenset(TYPES)


@pytest.mark.parametrize(
    ("text", "types", "meant"),
    [
        ("3", {"integer"}, 3),
        (" 3 ", {"number"}, 3),
        ("3.5", {"integer"}, 3.5),  # told as it is: the tool may say what is wrong
        ("three", {"integer"}, "three"),
        ("true", {"boolean"}, True),
        ("True", {"boolean"}, True),
        ("None", {"null", "string"}, None),
        ("null", {"string", "null"}, None),
        ("3", {"string", "null"}, "3"),
        ("3", EVERY, 3),
        ("a b", EVERY, "a b"),
        ('"a"', EVERY, '"a"'),
        ("{'a': True}", {"object"}, {"a": True}),
        ('{"a": 1} more', {"object"}, '{"a": 1} more'),
        ("[1, 2", {"array"}, "[1, 2"),
        ("", {"integer"}, ""),
        ("9" * 5000, {"integer"}, "9" * 5000),
        ("[" * 5000, EVERY, "[" * 5000),
    ],
)
def test_a_value(text, types, meant):
    assert json.loads(as_json(text, frozenset(types))) == meant


def arguments(case, text):
    row = CASES[case][0]
    parser = row.parser(TOOLS, ())
    events = [event for sign in text for event in parser.push(sign)] + parser.flush()
    found = ["".join(event.text for event in events if event.kind == ARGUMENTS)]
    return [event.text for event in events if event.kind == START], json.loads(found[0])


def test_a_value_may_hold_the_tags():
    text = "<parameter=city>\nx</parameter>y <parameter=a>\n</parameter>\nmore\n</parameter>\n"
    calls = arguments("qwen-coder", f"<tool_call>\n<function=get_weather>\n{text}</function>\n</tool_call>")
    assert calls == (["get_weather"], {"city": "x</parameter>y <parameter=a>\n</parameter>\nmore"})


@pytest.mark.parametrize(
    "text",
    [
        "<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>",
        "<tool_call>\n<function=get_weather><parameter=city>Rome</parameter><parameter=days>3</parameter></function></tool_call>",
        "<tool_call><function=get_weather>\n<parameter=city>\nRome\n</parameter>\n<parameter=days>\n3\n</parameter>\n</tool_call>",
        "<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n<parameter=days>\n3",
    ],
)
def test_tags_that_are_left_out(text):
    assert arguments("qwen-coder", text) == (["get_weather"], {"city": "Rome", "days": 3})


def test_a_string_comes_piece_by_piece_and_another_value_when_it_is_whole():
    parser = CASES["glm"][0].parser(TOOLS, ())
    parser.push("<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>")
    told = [
        [event.text for event in parser.push(piece)] for piece in ("Ro", 'me "', "</arg_value>\n<arg_key>days</arg_key>\n<arg_")
    ]
    assert told[:2] == [["Ro"], ['me \\"']] and told[2] == ['"']
    assert [[event.text for event in parser.push(piece)] for piece in ("value>1", "2</arg_value>", "\n</tool_call>")] == [
        [], [], [', "days": 12', "}", ""],
    ]  # fmt: skip
