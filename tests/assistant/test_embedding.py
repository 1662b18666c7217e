"""Texts to vectors: what stands around a text, pooling, cutting, normalising, and what a checkpoint says of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import lacewing
from lacewing.assistant.embedding import finished
from lacewing.errors import Cancelled, ContextOverflowError, OptionError, UnsupportedModelError
from lacewing.formats.checkpoint import Checkpoint
from lacewing.models.pooling import pooling_of
from tests import paged
from tests.checkpoints import tiny
from tests.models.running import open_step
from tests.tolerance import assert_equal_up_to_rounding

TEXTS = ["Hello there", "a", "A text of some more words, which is longer than the others."]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tiny("llama", "gguf", tmp_path_factory.mktemp("embedding"))
    with lacewing.load(path, backend="cpu", context=128, threads=2, sequences=3) as model:
        yield model


def expected(model, text: str) -> np.ndarray:
    """Float32 (T, D), by the reference backend in one run."""
    ids = model.tokenizer.encode_whole(text)
    _, step = open_step(model.path, 128)
    step.run(replace(paged.batch(step, ids, [0] * len(ids), range(len(ids)), []), hidden=np.arange(len(ids))))
    return step.hidden()


def test_pooling(model):
    for pooling, pool in (("last", lambda rows: rows[-1]), ("mean", lambda rows: rows.mean(axis=0)), ("none", lambda rows: rows)):
        for text, found in zip(TEXTS, model.embed(TEXTS, pooling=pooling, normalise=False), strict=True):
            np.testing.assert_allclose(found, pool(expected(model, text)), rtol=0, atol=1e-4)
            unit = model.embed(text, pooling=pooling)
            np.testing.assert_allclose(np.linalg.norm(unit, axis=-1), 1, rtol=1e-6)
            np.testing.assert_allclose(unit * np.linalg.norm(found, axis=-1, keepdims=True), found, rtol=1e-4, atol=1e-5)


def test_the_default_is_the_last_token(model):
    assert model.pooling == "last"
    assert_equal_up_to_rounding(model.embed("Hello"), model.embed("Hello", pooling="last"))
    alone, (beside, _) = model.embed("Hello"), model.embed(["Hello", "Hello there"])
    np.testing.assert_array_equal(alone, beside)


def test_dimensions():
    rows = np.array([[3.0, 4.0, 12.0], [0.0, 0.0, 1.0]], np.float32)
    np.testing.assert_allclose(finished(rows), [[3 / 13, 4 / 13, 12 / 13], [0, 0, 1]], rtol=1e-6)
    np.testing.assert_allclose(finished(rows, dimensions=2), [[0.6, 0.8], [0, 0]], rtol=1e-6)  # no length, no direction
    np.testing.assert_array_equal(finished(rows[0], normalise=False, dimensions=1), [3.0])
    for wrong in (0, 4, True, 1.0):
        with pytest.raises(OptionError, match="must be an integer from 1 to 3"):
            finished(rows, dimensions=wrong)


def test_what_cannot_be_embedded(model):
    with pytest.raises(OptionError, match="text 2 to embed is ''"):
        model.embed(["a", ""])
    with pytest.raises(OptionError, match="text 1 to embed is 5"):
        model.embed([5])
    with pytest.raises(OptionError, match="`pooling` is 'max'"):
        model.embed("a", pooling="max")
    with pytest.raises(ContextOverflowError):
        model.embed(["a", "word " * 200])
    with pytest.raises(Cancelled):
        model.embed(TEXTS, cancelled=lambda: True)
    assert len(model.embed(TEXTS)) == 3 and model.embed([]) == []


def of_gguf(tmp_path, value) -> Checkpoint:
    return Checkpoint(tmp_path / "m.gguf", "gguf", {"general.architecture": "qwen3", "qwen3.pooling_type": value}, {})


def test_pooling_that_a_gguf_file_names(tmp_path):
    assert [pooling_of(of_gguf(tmp_path, value)) for value in (0, 1, 3, None)] == [None, "mean", "last", None]
    for value, kind in ((2, "cls"), (4, "rank"), (9, "9")):
        with pytest.raises(UnsupportedModelError, match=f"of the kind {kind}, and mean and last are known"):
            pooling_of(of_gguf(tmp_path, value))


def test_pooling_that_a_folder_names(tmp_path):
    """As sentence-transformers writes it; the model uses it."""
    path = tiny("llama", "huggingface", tmp_path)
    with lacewing.load(path, backend="cpu", context=64) as model:
        assert model.pooling == "last"
    (path / "1_Pooling").mkdir()
    config = {"word_embedding_dimension": 64, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (path / "1_Pooling" / "config.json").write_text(json.dumps(config))
    with lacewing.load(path, backend="cpu", context=64) as model:
        assert model.pooling == "mean"
    (path / "1_Pooling" / "config.json").write_text(json.dumps(config | {"pooling_mode_max_tokens": True}))
    with (
        lacewing.load(path, backend="cpu", context=64) as model,
        pytest.raises(UnsupportedModelError, match="mean and pooling_mode"),
    ):
        _ = model.pooling
