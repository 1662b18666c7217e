"""`lacewing embed`: vectors of texts, from the command line and from lines."""

import io
import json
import sys

import numpy as np
import pytest

import lacewing as package

CPU = ("--backend", "cpu", "--threads", 2)


def test_vectors(lacewing, tiny_path):
    texts = ["Hello there", "a longer text, of more words", "Hello there"]
    code, out, _ = lacewing("embed", tiny_path, *texts, *CPU)
    rows = np.array([json.loads(line) for line in out.splitlines()])
    assert code == 0 and len(rows) == 3
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(rows[0], rows[2])
    with package.load(tiny_path, backend="cpu", threads=2) as model:
        np.testing.assert_allclose(rows, model.embed(texts), atol=1e-6)
    found = json.loads(lacewing("embed", tiny_path, "Hello there", "--pooling", "mean", "--dimensions", 5, "--json", *CPU)[1])
    assert found["pooling"] == "mean" and found["dimensions"] == 5 and len(found["embeddings"][0]) == 5
    assert found["model"] == "tiny"


def test_lines_of_standard_input(lacewing, tiny_path, monkeypatch):
    expected = lacewing("embed", tiny_path, "one", "two words", *CPU)[1]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\n\ntwo words\n")))
    assert lacewing("embed", tiny_path, *CPU)[1] == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    code, out, err = lacewing("embed", tiny_path, *CPU)
    assert (code, out) == (2, "") and "there is no text" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--pooling", "none"), "--pooling is 'none'; it must be one of last, mean"),
        (("--dimensions", 100000), "`dimensions` is 100000; it must be an integer from 1 to"),
    ],
)
def test_what_cannot_be(lacewing, tiny_path, words, message):
    code, out, err = lacewing("embed", tiny_path, "text", *words, *CPU)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1
