"""Durations as Go writes them, and what options become."""

from __future__ import annotations

import math

import pytest

from lacewing.server.ollama.options import AnswerBody, parse_duration
from lacewing.server.openai.errors import RequestError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m", 300), ("1h30m", 5400), ("1.5s", 1.5), ("300ms", 0.3), ("10", 10), ("-1", -1), ("-5m", -300), ("0", 0), (".5h", 1800)],
)
def test_durations(text, seconds):
    assert math.isclose(parse_duration(text), seconds)


@pytest.mark.parametrize("text", ["", "soon", "5 m", "m", "5x", "1h-30m", "9" * 100 + "q", "nan", "inf", "1e400"])
def test_what_is_no_duration(text):
    with pytest.raises(RequestError, match="keep_alive"):
        parse_duration(text)


def body(text: str) -> AnswerBody:
    return AnswerBody.parsed(f'{{"model": "m", {text}}}'.encode())


def test_how_long_a_model_stays():
    assert body('"stream": true').seconds() is None
    assert body('"keep_alive": -1').seconds() == body('"keep_alive": "-1m"').seconds() == math.inf
    assert body('"keep_alive": 0').seconds() == 0 and body('"keep_alive": 1800').seconds() == 1800


def test_room_bounds_what_is_generated():
    def tokens(text: str) -> int:
        return body(f'"options": {text}').chosen.sampling(0, 100).max_tokens

    assert [tokens(text) for text in ("{}", '{"num_predict": 7}', '{"num_predict": -1}', '{"num_predict": -2}')] == [
        100,
        7,
        100,
        100,
    ]
    assert tokens('{"num_predict": 1000}') == 100 and tokens('{"num_predict": 0}') == 0
    chosen = body('"options": {"seed": -5, "stop": "x", "repeat_last_n": -1, "top_k": 0}').chosen.sampling(2, 9)
    assert (chosen.seed, chosen.stop, chosen.top_k, chosen.logprobs) == (None, ("x",), 0, 2)


def test_how_hard_to_think():
    efforts = ("true", "false", '"low"', '"max"')
    assert [body(f'"think": {text}').effort for text in efforts] == ["medium", "none", "low", "high"]
    assert body('"stream": false').effort is None
