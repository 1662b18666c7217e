"""Refuses regular expressions of a file that can take exponential time, before any text meets them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lacewing.errors import TokenizerError

MAX_REGEX = 1 << 16
_TOKEN = re.compile(r"\\.|\[(?:\^?\]|\\.|\[[^\]]*\]|[^\]\\])*\]|\((?:\?[^)(]*?[:=!>])?|\)|[*+][+?]?|\{\d*,?\d*\}[+?]?|.", re.DOTALL)


def check_regexes(stages: Any) -> None:
    """Looks through the JSON of a tokenizer's stages for `{"Regex": ...}`. TokenizerError for one that is refused."""
    for regex in _found(stages):
        if len(regex) > MAX_REGEX:
            raise TokenizerError(f"tokenizer.json has a regular expression of {len(regex)} characters")
        if repeats_a_repeat(regex):
            raise TokenizerError(f"tokenizer.json has a regular expression that can take exponential time: {regex[:80]!r}")


def repeats_a_repeat(regex: str) -> bool:
    """Whether an unbounded repetition is applied to a group that holds one, as in `(a+)+`, possessive ones left aside."""
    unbounded = [False]  # one entry an open group: whether it holds an unbounded repetition
    closed = False  # whether the item just read is a group that holds one
    for token in _TOKEN.findall(regex):
        if token.startswith("("):
            unbounded.append(False)
            closed = False
        elif token == ")":
            closed = unbounded.pop() if len(unbounded) > 1 else False
            unbounded[-1] |= closed
        elif _is_unbounded(token):
            if closed:
                return True
            unbounded[-1] |= not (len(token) > 1 and token.endswith("+"))
            closed = False
        else:
            closed = False
    return False


def _is_unbounded(token: str) -> bool:
    return token[0] in "*+" or (token[0] == "{" and token.rstrip("+?").endswith(",}"))


def _found(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "Regex" and isinstance(inner, str):
                yield inner
            else:
                yield from _found(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _found(inner)
