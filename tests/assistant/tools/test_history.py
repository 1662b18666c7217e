"""Conversations with calls and results, however odd, in one shape."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lacewing.assistant.tools.history import any_id, concerns, counted_id, normalised, short_id
from lacewing.errors import TemplateError

USER = {"role": "user", "content": "Hi"}


def call(id, name="f", arguments="{}"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*made, **others):
    return {"role": "assistant", "content": None, "tool_calls": list(made), **others}


def result(id, content="r", **others):
    return {"role": "tool", "tool_call_id": id, "content": content, **others}


def test_a_proper_conversation_stays_as_it_is():
    messages = [USER, calls(call("a"), call("b")), result("a", name="f"), result("b", name="f"), USER]
    assert normalised(messages) == messages
    assert not concerns(USER) and all(map(concerns, messages[1:4]))


def ids(messages, **options):
    found = normalised(messages, **options)
    return [
        (
            [each["id"] for each in message["tool_calls"]]
            if "tool_calls" in message
            else (message["tool_call_id"], message["content"])
        )
        for message in found
        if concerns(message)
    ]


@pytest.mark.parametrize(
    ("results", "told"),
    [
        ([result("b", "2"), result("a", "1")], [("a", "1"), ("b", "2")]),
        ([result(None, "1"), result(None, "2")], [("a", "1"), ("b", "2")]),
        ([result(None, "2"), result("a", "1")], [("a", "1"), ("b", "2")]),
        ([result("what", "1"), result(7, "2")], [("a", "1"), ("b", "2")]),
        ([result("", "2", name="g")], [("b", "2")]),
        ([result("a", "1"), result("a", "again")], [("a", "1"), ("b", "again")]),
        ([result("a", "1"), result("b", "2"), result("c", "3")], [("a", "1"), ("b", "2"), ("c", "3")]),
        ([{"role": "function", "name": "g", "content": "2"}], [("b", "2")]),
        ([result("a", {"t": 20}), result("b", 3)], [("a", '{"t": 20}'), ("b", "3")]),
    ],
)
def test_results_find_their_calls_and_stand_in_their_order(results, told):
    assert ids([USER, calls(call("a", "f"), call("b", "g")), *results]) == [["a", "b"], *told]


def test_results_without_a_call_are_kept():
    assert ids([USER, result(None)]) == [("", "r")]
    assert ids([USER, calls(call("a")), USER, result("a", "late")]) == [["a"], ("a", "late")]


def test_calls_without_ids_get_some():
    messages = [USER, calls(call(None), call("")), result(None, "1"), result(None, "2"), USER, calls(call(None))]
    assert ids(messages) == [["call_0", "call_1"], ("call_0", "1"), ("call_1", "2"), ["call_2"]]
    assert ids(messages, ids=counted_id) == [
        ["functions.f:0", "functions.f:1"],
        ("functions.f:0", "1"),
        ("functions.f:1", "2"),
        ["functions.f:2"],
    ]


def test_ids_that_a_template_refuses_become_others_everywhere():
    found = ids([USER, calls(call("call_123"), call("abcdefgh9")), result("call_123"), result("abcdefgh9")], ids=short_id)
    assert found[0][0] == found[1][0] == short_id("call_123", "f", 5) and len(found[0][0]) == 9 and found[0][0].isalnum()
    assert found[0][1] == found[2][0] == "abcdefgh9"
    assert counted_id("functions.f:3", "f", 0) == "functions.f:3" and any_id("x", "f", 0) == "x"


@pytest.mark.parametrize(
    ("given", "told"),
    [(None, "{}"), ("", "{}"), ({"a": 1}, '{"a": 1}'), ('{"a":1}', '{"a":1}'), ("not JSON", "not JSON")],
)
def test_arguments(given, told):
    made = call("a")
    made["function"]["arguments"] = given
    assert normalised([calls(made)])[0]["tool_calls"][0]["function"]["arguments"] == told


def test_other_shapes_of_calls():
    old = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    assert normalised([old]) == [{"role": "assistant", "content": None, "tool_calls": [call("call_0")]}]
    assert normalised([calls({"name": "f"})]) == [calls(call("call_0"))]
    assert normalised([calls()]) == normalised([{**USER, "role": "assistant", "content": None, "tool_calls": None}])
    assert "tool_calls" not in normalised([calls()])[0]


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("Hi", r"messages\[0\] is no message"),
        (calls("f"), r"messages\[0\].tool_calls\[0\] needs a function with a name"),
        (calls({"function": {}}), "needs a function with a name"),
        (calls({"function": {"name": 3}}), "needs a function with a name"),
        ({"role": "assistant", "tool_calls": "f"}, "must be a list of calls, it is str"),
        ({"role": "assistant", "tool_calls": {"a": 1}}, "must be a list of calls, it is dict"),
    ],
)
def test_what_is_no_call_is_refused(message, told):
    with pytest.raises(TemplateError, match=told):
        normalised([message])


JSON = st.none() | st.booleans() | st.integers() | st.text(max_size=4)
KEYS = st.sampled_from(["id", "name", "function", "arguments", "x"])
ODD = st.recursive(JSON, lambda each: st.lists(each, max_size=2) | st.dictionaries(KEYS, each, max_size=3), max_leaves=5)
ROLE = {"role": st.sampled_from(["user", "assistant", "tool", "function"])}
OTHERS = dict.fromkeys(("content", "tool_calls", "tool_call_id", "name", "function_call"), ODD)
MESSAGES = st.lists(st.fixed_dictionaries(ROLE, optional=OTHERS), max_size=6)


@settings(max_examples=200, deadline=None)
@given(MESSAGES)
def test_odd_conversations_are_put_in_shape_or_refused(messages):
    try:
        found = normalised(messages)
    except TemplateError:
        return
    assert len(found) == len(messages)
    json.dumps(found)
    for message in found:
        for each in message.get("tool_calls", ()):
            assert isinstance(each["id"], str) and each["id"] and isinstance(each["function"]["arguments"], str)
