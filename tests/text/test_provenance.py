"""Strings that know which characters a user wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lacewing.text.provenance import Text, from_user, join, mark

LETTERS = "ab \n\t<>"
OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "strip": lambda s: s.strip(),
    "strip some": lambda s: s.strip("a<"),
    "lstrip": lambda s: s.lstrip(),
    "rstrip": lambda s: s.rstrip("\n"),
    "slice": lambda s: s[1:-1],
    "slice from": lambda s: s[2:],
    "index": lambda s: s[0:1],
    "split": lambda s: s.split("a"),
    "split once": lambda s: s.split("<", 1),
    "split spaces": lambda s: s.split(),
    "rsplit": lambda s: s.rsplit("a", 1),
    "rsplit spaces": lambda s: s.rsplit(None, 1),
    "splitlines": lambda s: s.splitlines(),
    "splitlines with ends": lambda s: s.splitlines(True),
    "partition": lambda s: s.partition("a"),
    "rpartition": lambda s: s.rpartition("a"),
    "replace": lambda s: s.replace("a", "<>"),
    "replace some": lambda s: s.replace("<", "", 1),
    "removeprefix": lambda s: s.removeprefix("a"),
    "removesuffix": lambda s: s.removesuffix("a"),
    "lower": lambda s: s.lower(),
    "iterate": lambda s: list(s),
}


@st.composite
def mixed(draw: st.DrawFn) -> tuple[Text, str]:
    """A text of trusted lower-case and a user's upper-case letters, and its plain spelling."""
    parts = draw(st.lists(st.tuples(st.text(LETTERS, max_size=6), st.booleans()), max_size=5))
    text = join([Text(part) if user else part for part, user in parts])
    return (text if isinstance(text, Text) else Text(text, ())), "".join(part for part, _ in parts)


def users(text: str) -> list[bool]:
    """For each character whether a user wrote it."""
    return [not trusted for part, trusted in text.segments() for _ in part] if isinstance(text, Text) else [False] * len(text)


@pytest.mark.parametrize("name", OPERATIONS)
@given(pair=mixed())
@settings(max_examples=60, deadline=None)
def test_operations_equal_those_of_str_and_keep_what_users_wrote(name: str, pair: tuple[Text, str]):
    text, plain = pair
    result, expected = OPERATIONS[name](text), OPERATIONS[name](plain)
    assert result == expected
    # Each character that a user wrote is still known as such: their number can only shrink with the text.
    pieces = list(result) if isinstance(result, (list, tuple)) else [result]
    assert all(len(users(piece)) == len(piece) for piece in pieces)
    if name.startswith(("slice from", "lstrip")):
        assert users(result) == users(text)[len(text) - len(result) :]
    if name in ("split spaces", "splitlines with ends", "partition", "rpartition", "iterate"):
        flags = [flag for piece in pieces for flag, letter in zip(users(piece), piece, strict=True) if letter.strip()]
        assert flags == [flag for flag, letter in zip(users(text), text, strict=True) if letter.strip()]


@given(st.lists(mixed(), max_size=5), mixed())
@settings(max_examples=100, deadline=None)
def test_join(items: list[tuple[Text, str]], separator: tuple[Text, str]):
    result = join([text for text, _ in items], separator[0])
    assert result == separator[1].join(plain for _, plain in items)
    expected: list[bool] = []
    for i, (text, _) in enumerate(items):
        expected += (users(separator[0]) if i else []) + users(text)
    assert users(result) == expected


def test_str_keeps_the_type_and_other_operations_mark_everything():
    text = Text("abc")
    assert type(str(text)) is Text
    assert Text("ABC", ((0, 1),)).lower().spans == ((0, 1),)
    assert Text("ß", ((0, 1),)).upper().spans == ((0, 2),)
    assert mark(["a", ("b", 3)])[0].spans == ((0, 1),)
    with pytest.raises(TypeError):
        text["a"]  # type: ignore[index]


def test_copies_of_messages():
    copy = from_user({"a": ["b", {"c": None}], "d": 1.5})
    assert copy == {"a": ["b", {"c": None}], "d": 1.5}
    assert isinstance(copy["a"][0], Text) and all(isinstance(key, Text) for key in copy)
    with pytest.raises(ValueError, match="object"):
        from_user(object())
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(ValueError, match="64"):
        from_user(deep)
