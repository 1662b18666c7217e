"""Vectors of texts with the official client, beside those of the API."""

from __future__ import annotations

import base64

import httpx
import numpy as np
import openai
import pytest

TEXTS = ["The sky is blue.", "Ships sail on the sea."]


def test_vectors_are_those_of_the_api(client, model):
    got = client.embeddings.create(model="tiny", input=TEXTS)  # the client asks for base64, and decodes it
    expected = model.embed(TEXTS)
    assert [each.index for each in got.data] == [0, 1] and got.usage.prompt_tokens == got.usage.total_tokens > 0
    for found, wanted in zip(got.data, expected, strict=True):
        assert np.array_equal(np.float32(found.embedding), wanted)


@pytest.mark.parametrize("given", [TEXTS[0], [TEXTS[0]], "ids", "list of ids"])
def test_every_form_of_input_and_both_encodings(url, model, given):
    ids = model.tokenizer.encode_whole(TEXTS[0])
    given = {"ids": ids, "list of ids": [ids]}.get(given, given) if isinstance(given, str) else given
    plain = httpx.post(f"{url}/v1/embeddings", json={"model": "tiny", "input": given}, timeout=30).json()["data"][0]["embedding"]
    packed = httpx.post(
        f"{url}/v1/embeddings", json={"model": "tiny", "input": given, "encoding_format": "base64"}, timeout=30
    ).json()
    assert np.array_equal(np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4"), np.float32(plain))
    assert np.array_equal(np.float32(plain), model.embed(TEXTS[0]))


def test_dimensions_pooling_and_length(client, model):
    got = client.embeddings.create(model="tiny", input=TEXTS[0], dimensions=64, extra_body={"pooling": "mean", "normalize": False})
    expected = model.embed(TEXTS[0], pooling="mean", normalise=False, dimensions=64)
    assert len(expected) == 64 and np.array_equal(np.float32(got.data[0].embedding), expected)


@pytest.mark.parametrize("normalize", [None, True])
def test_a_vector_for_each_token(url, model, normalize):
    """As llama-server's /embedding has them: not normalised where nobody asks for it."""
    body = {"model": "tiny", "input": TEXTS, "pooling": "none"} | ({} if normalize is None else {"normalize": normalize})
    got = httpx.post(f"{url}/v1/embeddings", json=body, timeout=30).json()
    packed = httpx.post(f"{url}/v1/embeddings", json={**body, "encoding_format": "base64"}, timeout=30).json()
    for found, coded, text in zip(got["data"], packed["data"], TEXTS, strict=True):
        expected = model.embed(text, pooling="none", normalise=bool(normalize))
        assert len(expected) == len(model.tokenizer.encode_whole(text)) > 1
        assert np.array_equal(np.float32(found["embedding"]), expected)
        assert np.array_equal([np.frombuffer(base64.b64decode(each), "<f4") for each in coded["embedding"]], expected)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"input": ""}, "embed"),
        ({"input": []}, "input"),
        ({"input": "x", "dimensions": 10**6}, "dimensions"),
        ({"input": "x " * 9000}, "context"),
    ],
)
def test_what_is_refused(client, options, problem):
    with pytest.raises(openai.BadRequestError, match=problem):
        client.embeddings.create(model="tiny", **options)
