"""Tokenizer and template over HTTP."""

from __future__ import annotations

import httpx
import pytest

WRONG = [
    ("/tokenize", {}),
    ("/detokenize", {"tokens": [-1]}),
    ("/detokenize", {"tokens": [10**8]}),
    ("/apply-template", {}),
]
TEXT = "Hello, 世界 <|im_start|>"


def post(url: str, path: str, **body):
    response = httpx.post(url + path, json=body, timeout=30)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("special", [False, True])
def test_tokens_and_back(url, model, special):
    found = post(url, "/tokenize", content=TEXT, parse_special=special)["tokens"]
    assert found == model.tokenize(TEXT, special=special)
    assert (model.tokenizer.control_tokens["<|im_start|>"] in found) is special
    assert post(url, "/detokenize", tokens=found)["content"] == TEXT


def test_pieces(url):
    pieces = [each["piece"] for each in post(url, "/tokenize", content="世界!", with_pieces=True)["tokens"]]
    data = b"".join(piece.encode() if isinstance(piece, str) else bytes(piece) for piece in pieces)
    assert data.decode() == "世界!"


def test_a_conversation_as_a_prompt(url, model):
    messages = [{"role": "user", "content": "Hi"}]
    assert post(url, "/apply-template", messages=messages)["prompt"] == model.render(messages)


def test_what_is_wrong_is_told(url):
    for path, body in WRONG:
        assert httpx.post(url + path, json=body).status_code == 400
