"""Thoughts, text and calls in one stream; ids, counts, and the end after one call."""

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lacewing.assistant.deltas import CallDelta
from lacewing.assistant.tools.splitter import CallSplitter
from lacewing.text.reasoning import ReasoningSplitter
from tests.assistant.tools.formats import CASES, TOOLS

CALL = ("get_weather", {"city": "Rome"})
OTHER = ("now", {})


def splitter(case="hermes", tag=None, **options):
    row = CASES[case][0]
    thoughts = None if case.startswith("harmony") else ReasoningSplitter(tag)
    return CallSplitter(row, row.parser(TOOLS, ("</think>",)), thoughts, **options)


def split(text, case="hermes", tag=None, pieces=None, **options):
    """(thoughts, text, calls) of an answer."""
    one = splitter(case, tag, **options)
    found = [piece for part in pieces or text for piece in one.push(part)] + one.flush()
    calls = {}
    for piece in found:
        if isinstance(piece, CallDelta):
            if piece.name is not None:
                assert piece.id and piece.arguments == "" and piece.index == len(calls)
                calls[piece.index] = [piece.name, ""]
            else:
                assert piece.id is None and piece.arguments
                calls[piece.index][1] += piece.arguments
    texts = [piece for piece in found if not isinstance(piece, CallDelta)]
    thoughts, told = ("".join(text for kind, text in texts if kind == which) for which in ("reasoning", "text"))
    return thoughts, told, [(name, json.loads(arguments)) for name, arguments in calls.values()]


def write(case, *calls):
    return CASES[case][1](calls)


THINKING = [name for name in CASES if not name.startswith("harmony")]


@pytest.mark.parametrize("case", THINKING)
@pytest.mark.parametrize("tag", [None, "<think>"])
def test_thoughts_then_calls(case, tag):
    text = ("" if tag else "<think>\n") + "I should look.\n</think>\n\n" + write(case, CALL, OTHER)
    assert split(text, case, tag) == ("I should look.", "", [CALL, OTHER])


@pytest.mark.parametrize("case", [name for name in THINKING if CASES[name][2]])
@pytest.mark.parametrize("certain", [True, False])
def test_a_call_ends_thoughts_that_were_not_ended(case, certain):
    text = "I should look.\n" + write(case, CALL, OTHER)
    assert split(text, case, "<think>", certain=certain) == ("I should look.", "", [CALL, OTHER])


def test_a_call_that_is_drafted_in_thoughts_is_none():
    draft = f"I could write {write('hermes', CALL)} but no."
    text = f"{draft}\n</think>\n\n{write('hermes', OTHER)}"
    assert split(text, tag="<think>", certain=False) == (draft, "", [OTHER])
    assert split(f"{draft}</think>Hello", tag="<think>", certain=False) == (draft, "Hello", [])


def test_text_then_calls_then_text():
    text = f"Let me see.\n\n{write('hermes', CALL)}\n\nDone."
    assert split(text)[1:] == ("Let me see.\n\nDone.", [CALL])


def test_harmony_has_all_in_one_stream():
    text = (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
        "<|start|>assistant" + write("harmony", CALL)
    )
    assert split(text, "harmony") == ("Hm.", "I look.", [CALL])
    text = "<|channel|>analysis to=functions.rm<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>No."
    assert split(text, "harmony") == ("{}", "No.", [])


def test_one_call_is_enough_where_one_is_wanted():
    one = splitter(parallel=False)
    pieces = one.push(write("hermes", CALL, OTHER) + " text")
    assert one.ended and {piece.index for piece in pieces} == {0} and one.flush() == []


def test_the_first_piece_of_a_call_has_its_name_and_later_ones_its_arguments_as_they_come():
    one = splitter()
    start = one.push('Hm.\n<tool_call>\n{"name": "get_weather", "arguments": {')
    assert start[0] == ("text", "Hm.")
    assert start[1][2:] == ("get_weather", "") and start[1].id.startswith("call_") and len(start[1].id) == 29
    assert start[2:] == [CallDelta(0, None, None, "{")]
    assert one.push('"city": "Ro') == [CallDelta(0, None, None, '"city": "Ro')]
    assert one.push('me"}}') == [CallDelta(0, None, None, 'me"}')]
    assert one.push("\n</tool_call>") == [] and one.held == 0


def ids(text, case):
    one = splitter(case)
    return [piece.id for piece in (*one.push(text), *one.flush()) if isinstance(piece, CallDelta) and piece.id]


def test_ids():
    assert len(set(ids(write("hermes", CALL, CALL), "hermes"))) == 2
    assert all(len(id) == 9 and id.isalnum() for id in ids(write("mistral", CALL, CALL), "mistral"))
    assert ids(write("mistral-id", CALL, CALL), "mistral-id") == ["000000000", "000000001"]
    assert ids(write("kimi", CALL, OTHER), "kimi") == ["functions.get_weather:0", "functions.now:1"]
    twice = write("kimi", CALL).replace("<|tool_calls_section_end|>", "") + write("kimi", CALL)
    assert ids(twice, "kimi") == ["functions.get_weather:0", "functions.get_weather:1"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "x ", "\n", write("hermes", CALL), "<tool_call>", "</tool_call>", "{"]), max_size=9
    ),
    st.lists(st.integers(0, 10**6), max_size=9),
    st.sampled_from([None, "<think>"]),
    st.booleans(),
)
def test_it_does_not_matter_where_the_text_is_cut(parts, cuts, tag, certain):
    text = "".join(parts)
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    pieces = [text[a:b] for a, b in pairwise(edges)]
    assert split(text, tag=tag, pieces=pieces, certain=certain) == split(text, tag=tag, pieces=[text], certain=certain)
