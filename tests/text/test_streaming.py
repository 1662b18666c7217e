"""Ids to text one by one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lacewing.errors import TokenizerError
from lacewing.text.tokenizer import Tokenizer
from tests.text import vocabularies as v

BPE, SPM = v.tokenizer(v.byte_level()), v.tokenizer(v.sentencepiece())


def deltas(tokenizer: Tokenizer, ids: list[int], **options: bool) -> list[str]:
    stream = tokenizer.stream(**options)
    return [*map(stream.push, ids), stream.flush()]


@given(st.data(), st.booleans(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_deltas_are_the_whole_text_and_never_half_a_character(data: st.DataObject, special: bool, continuation: bool):
    for tokenizer in (BPE, SPM):
        ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=40))
        parts = deltas(tokenizer, ids, special=special, continuation=continuation)
        assert "".join(parts) == tokenizer.decode(ids, special=special, continuation=continuation)
        "".join(parts).encode()  # no surrogates


@given(st.text(max_size=30))
@settings(max_examples=150, deadline=None)
def test_a_character_comes_in_one_delta(text: str):
    """Every delta ends where a character of the text ends."""
    for tokenizer in (BPE, SPM):
        text = text.replace("▁", "").replace("  ", "")
        parts = deltas(tokenizer, tokenizer.encode(text))
        assert "\ufffd" in text or "\ufffd" not in "".join(parts)
        assert "".join(parts) == text


def test_incomplete_characters_are_held_back():
    ids = SPM.encode("😀")[1:]
    assert deltas(SPM, ids) == ["", "", "", "😀", ""]
    assert deltas(SPM, ids[:3]) == ["", "", "", "\ufffd"]
    assert deltas(SPM, [*ids[:2], *SPM.encode("hello")], continuation=True) == ["", "", "\ufffd hello", ""]


def test_stray_bytes_become_replacement_characters():
    stray = v.spelt(v.sentencepiece(), "<0xFF>")
    assert SPM.decode(stray * 3, continuation=True) == "\ufffd" * 3


def test_control_tokens_are_silent_unless_asked_for():
    assert deltas(BPE, [1, *BPE.encode("hello"), 2]) == ["", "hello", "", ""]
    assert "".join(deltas(BPE, [1, *BPE.encode("hello"), 2], special=True)) == "<|im_start|>hello<|im_end|>"


def test_the_space_of_the_encoder_goes_only_at_the_start():
    assert "".join(deltas(SPM, [1, *SPM.encode("hello"), *SPM.encode("world")])) == "hello world"
    assert SPM.decode(SPM.encode("  ")) == "  "


@pytest.mark.parametrize("token", [-1, 10**6])
def test_ids_outside_the_vocabulary_are_refused(token: int):
    with pytest.raises(TokenizerError, match="outside the vocabulary"):
        BPE.decode([token])
