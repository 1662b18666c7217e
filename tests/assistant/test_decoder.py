import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lacewing.assistant.decoder import AnswerDecoder
from lacewing.assistant.deltas import CallDelta, Delta
from lacewing.engine.sampling import Token
from lacewing.text.reasoning import ReasoningSplitter
from lacewing.text.vocabulary import byte_alphabet
from tests.text.vocabularies import byte_level, tokenizer

TOKENIZER = tokenizer(byte_level())
PLACES = {value: 3 + place for place, value in enumerate(byte_alphabet().values())}


def tokens(text):
    """One for each byte."""
    return [Token(PLACES[value]) for value in text.encode()]


class Calls:
    """Everything between braces is the argument of a call."""

    ended = open = False

    def __init__(self):
        self.inside, self.index, self.held = False, -1, 0

    def push(self, text):
        pieces = []
        for sign in text:
            if sign == "{":
                self.inside, self.index = True, self.index + 1
                pieces.append(CallDelta(self.index, f"call_{self.index}", "f", ""))
            if self.inside:
                pieces.append(CallDelta(self.index, None, None, sign))
                self.inside = sign != "}"
            else:
                pieces.append(("text", sign))
        return pieces

    def flush(self, cut=False):
        return []


def decode(text, splitter=None, reason="stop", **options):
    decoder, deltas = AnswerDecoder(TOKENIZER, splitter or ReasoningSplitter(), **options), []
    for token in tokens(text):
        deltas += decoder.push(token)
        if decoder.ended:
            break
    return decoder, deltas + decoder.finish(reason)


def test_thoughts_and_text():
    decoder, deltas = decode("<think>\nhm é</think>\n\nYes\N{SLICE OF PIZZA}!")
    assert "".join(deltas) == "Yes\N{SLICE OF PIZZA}!" and "".join(each.reasoning for each in deltas) == "hm é"
    assert decoder.message == {"role": "assistant", "content": "Yes\N{SLICE OF PIZZA}!", "reasoning_content": "hm é"}
    assert decoder.finish_reason == "stop" and decoder.ended is None


def test_stop_strings_are_of_the_visible_text():
    """Neither in thoughts nor across their end, and what was held back for one is shown in its place."""
    decoder, deltas = decode("<think>a STOP b</think>x ST y STOP z", stops=("STOP",))
    assert "".join(each.reasoning for each in deltas) == "a STOP b"
    assert "".join(deltas) == "x ST y " and decoder.finish_reason == decoder.ended == "stop"
    decoder, deltas = decode("<think>a ST</think>OP", stops=("STOP",))
    assert "".join(deltas) == "OP" and decoder.ended is None
    decoder, deltas = decode("x ST", stops=("STOP",), reason="length")
    assert "".join(deltas) == "x ST" and decoder.finish_reason == "length"


def test_strings_of_the_template_end_thoughts_as_well():
    decoder, deltas = decode("<think>hm<|end|>more", markup_stops=("<|end|>",))
    assert [each.reasoning for each in deltas if each.reasoning] == ["h", "m"] and decoder.finish_reason == "stop"


def test_calls():
    decoder, deltas = decode('On it. {"a":1}{}', Calls())
    assert "".join(deltas) == "On it. " and decoder.finish_reason == "tool_calls"
    calls = [call for each in deltas for call in each.calls]
    assert calls[0] == (0, "call_0", "f", "") and all(call.id is None for call in calls[1:8])
    assert decoder.message["tool_calls"] == [
        {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
    ]
    assert decode('{"a', Calls(), "length")[0].finish_reason == "length"


def test_the_message_that_it_continues():
    begun = {"role": "assistant", "content": "One, ", "reasoning": "count"}
    decoder, deltas = decode("two", begun=begun, continuation=True)
    assert "".join(deltas) == "two"
    assert decoder.message == {"role": "assistant", "content": "One, two", "reasoning_content": "count"}


@given(st.text("<>/think \nabST\N{SLICE OF PIZZA}{}", max_size=40), st.sampled_from(["thoughts", "calls"]))
def test_every_token_comes_once_and_in_order(text, kind):
    splitter = Calls() if kind == "calls" else ReasoningSplitter()
    decoder, deltas = decode(text, splitter, stops=("STa",))
    found = [token.id for each in deltas for token in each.tokens]
    expected = [token.id for token in tokens(text)]
    assert found == expected[: len(found)] and (decoder.ended or found == expected)
    assert decoder.message["content"] == "".join(deltas)


@given(st.text("abST \N{SLICE OF PIZZA}", max_size=30))
def test_tokens_come_with_the_text_that_they_complete(text):
    _, deltas = decode(text, stops=("STaS",))
    for count in range(1, len(deltas)):
        assert sum(len(each.encode()) for each in deltas[:count]) == sum(len(each.tokens) for each in deltas[:count])


def test_tokens_of_a_tag_are_no_part_of_the_text():
    _, deltas = decode("<think>hm</think>Yes")
    assert [len(each.tokens) for each in deltas if each] == [1, 1, 1]


@pytest.mark.parametrize(
    "delta", [Delta("a"), Delta(reasoning="b"), Delta(calls=(CallDelta(0, "1", "f", ""),), tokens=(Token(3),))]
)
def test_a_delta_is_a_string_and_more(delta):
    copy = pickle.loads(pickle.dumps(delta))
    assert copy == delta and isinstance(delta, str)
    assert (copy.reasoning, copy.calls, copy.tokens) == (delta.reasoning, delta.calls, delta.tokens)
    assert f"{delta}" == "".join([delta]) == str(delta) and repr(delta).startswith("Delta(")
