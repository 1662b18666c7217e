"""Ids to text one by one, and stop strings wherever a text is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lacewing.errors import OptionError, TokenizerError
from lacewing.text.streaming import StopStrings
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


TEXT = st.text("abc", max_size=40)


def shown(stops: list[str], deltas: list[str]) -> tuple[str, str | None]:
    guard = StopStrings(stops)
    text = "".join(map(guard.push, deltas)) + guard.flush()
    return text, guard.hit


@given(st.lists(st.text("abc", min_size=1, max_size=5), max_size=4), TEXT, st.lists(st.integers(0, 40), max_size=8))
@settings(max_examples=500, deadline=None)
def test_however_the_text_is_cut(stops: list[str], text: str, cuts: list[int]):
    first = min((text.find(stop) for stop in stops if stop in text), default=-1)
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    deltas = [text[a:b] for a, b in pairwise(edges)]
    result, hit = shown(stops, deltas)
    assert result == (text if first < 0 else text[:first])
    assert (hit is None) == (first < 0)
    assert hit is None or text.startswith(hit, first)


@given(st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=4), TEXT)
@settings(max_examples=200, deadline=None)
def test_no_more_is_held_back_than_could_begin_a_stop(stops: list[str], text: str):
    guard = StopStrings(stops)
    so_far = "".join(map(guard.push, text))
    if guard.hit is None:
        held = text[len(so_far) :]
        assert held == "" or any(stop.startswith(held) for stop in stops) or any(stop in held for stop in stops)


def test_nothing_comes_after_a_stop():
    guard = StopStrings(["END"])
    assert [guard.push(part) for part in ("text E", "N", "D more", "and more")] == ["text ", "", "", ""]
    assert (guard.flush(), guard.hit) == ("", "END")


def test_a_start_that_does_not_become_a_stop_is_shown():
    guard = StopStrings(["END"])
    assert guard.push("EN") == ""
    assert guard.push("X") == "ENX"
    assert guard.push("E") + guard.flush() == "E"


@pytest.mark.parametrize("stops", [[""], ["x"] * 33, ["x" * 257], [3]])
def test_bounds(stops: list[str]):
    with pytest.raises(OptionError, match="stop"):
        StopStrings(stops)


def test_one_string_stands_for_itself():
    assert shown("END", ["aEND"]) == ("a", "END")  # type: ignore[arg-type]
