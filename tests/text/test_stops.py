"""Stop strings wherever a text is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lacewing.errors import OptionError
from lacewing.text.stops import StopStrings

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
