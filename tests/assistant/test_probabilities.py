"""The bytes of each token: joined they are the text, and none is told that the text does not show."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lacewing.assistant.decoder import AnswerDecoder
from lacewing.assistant.probabilities import TokenTexts
from lacewing.engine.sampling import Token
from lacewing.errors import TokenizerError
from lacewing.text.reasoning import ReasoningSplitter
from tests.text import vocabularies as v

BPE, SPM = v.tokenizer(v.byte_level()), v.tokenizer(v.sentencepiece())
IDS = st.lists(st.integers(0, 265), max_size=40)
TOKENIZERS = pytest.mark.parametrize("tokenizer", [BPE, SPM], ids=["bytes", "spaces"])


@TOKENIZERS
@given(ids=IDS, continuation=st.booleans(), special=st.booleans())
@settings(max_examples=200, deadline=None)
def test_the_joined_bytes_are_the_text(tokenizer, ids, continuation, special):
    texts = TokenTexts(tokenizer, continuation=continuation, special=special)
    found = [texts.push(Token(token, -1.0)) for token in ids]
    data = b"".join(each.data for each in found if each.shown)
    assert data.decode("utf-8", "replace") == tokenizer.decode(ids, special=special, continuation=continuation)
    for place, each in enumerate(found):
        before = b"".join(other.data for other in found[:place] if other.shown)
        assert each.offset == len(_whole(before)) and each.id == ids[place]
        assert each.shown or each.data == tokenizer.token_bytes(each.id)


def _whole(data: bytes) -> str:
    """Without a character at the end that is not complete."""
    import codecs

    return codecs.getincrementaldecoder("utf-8")("replace").decode(data)


def test_parts_of_characters_and_first_spaces():
    (first,) = v.spelt(v.sentencepiece(), "▁hello")
    texts = TokenTexts(SPM)
    found = texts.push(Token(first, -0.5, ((first, -0.5), (2, -3.0))))
    assert (found.data, found.text, found.label, found.offset) == (b"hello", "hello", "hello", 0)
    assert [(each.data, each.shown, each.logprob) for each in found.alternatives] == [
        (b"hello", True, -0.5),
        (b"</s>", False, -3.0),
    ]
    again = texts.push(Token(first, None, ((first, -1.0),)))
    assert (again.data, again.offset, again.alternatives[0].data) == (b" hello", 5, b" hello")
    texts = TokenTexts(BPE)
    parts = [texts.push(Token(BPE.encode("x")[0])), *(texts.push(Token(token)) for token in BPE.encode("\N{SLICE OF PIZZA}y"))]
    assert b"".join(each.data for each in parts).decode() == "x\N{SLICE OF PIZZA}y"
    assert [each.offset for each in parts] == [0, 1, 1, 1, 1, 2]
    assert parts[1].label == "bytes:\\xf0" and parts[1].text == "\ufffd"
    with pytest.raises(TokenizerError):
        texts.push(Token(10**6))


# tokens of deltas


def shown(ids, stops, splitter=None, **options):
    """The visible text, and the tokens that came with deltas."""
    decoder, deltas = AnswerDecoder(BPE, splitter, stops=stops, **options), []
    for place, token in enumerate(ids):
        deltas += decoder.push(Token(token, float(-place)))
        if decoder.ended:
            break
    deltas += decoder.finish("length")
    return "".join(deltas), [token for delta in deltas for token in delta.tokens], deltas


@given(
    st.text("abé\N{SLICE OF PIZZA}", max_size=12), st.lists(st.text("abé\N{SLICE OF PIZZA}", min_size=1, max_size=3), max_size=3)
)
@settings(max_examples=300, deadline=None)
def test_tokens_behind_a_stop_are_left_out(text, stops):
    """All whose text is shown are told, each once and in order; the last may be shown in part."""
    ids = BPE.encode(text)
    visible, tokens, _ = shown(ids, stops)
    assert [-token.logprob for token in tokens] == list(range(len(tokens)))
    data = b"".join(BPE.token_bytes(token.id) for token in tokens)
    assert data.startswith(visible.encode())
    assert b"".join(BPE.token_bytes(token.id) for token in tokens[:-1]) < visible.encode() or not tokens
    cut = min((text.find(stop) for stop in stops if stop in text), default=len(text))
    assert visible == text[:cut]


def test_a_token_that_is_cut_is_told_whole():
    (hello,) = BPE.encode("hello")
    assert shown([hello, *BPE.encode(" world")], ["lo"])[:2] == ("hel", [Token(hello, -0.0)])
    assert shown([hello, *BPE.encode(" world")], ["hell"])[:2] == ("", [])


def test_stops_and_thoughts():
    text = "<think>ab</think>cdef"
    visible, tokens, deltas = shown(BPE.encode(text), ["e"], ReasoningSplitter())
    assert visible == "cd" and "".join(each.reasoning for each in deltas) == "ab"
    assert b"".join(BPE.token_bytes(token.id) for token in tokens).decode() == "<think>ab</think>cd"
    visible, tokens, _ = shown(BPE.encode("ab<end>cd"), [], markup_stops=["<end>"])
    assert visible == "ab" and len(tokens) == len(BPE.encode("ab"))
