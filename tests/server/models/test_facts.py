"""What headers tell about models that are not in memory."""

from __future__ import annotations

import json
import os

import numpy as np

from lacewing.options import LoadOptions
from lacewing.server.models.facts import KnownFacts, _shown
from lacewing.server.models.names import Source
from tests.checkpoints import tiny

OPTIONS = LoadOptions(context=64)


def test_of_a_dense_model_and_a_mixture(tmp_path):
    known = KnownFacts()
    dense = known.get(Source("dense", str(tiny("llama", "gguf", tmp_path))), OPTIONS)
    assert (dense.architecture, dense.format, dense.context, dense.experts) == ("llama", "gguf", 64, None)
    assert dense.capabilities[0] == "completion" and dense.metadata["general.architecture"] == "llama"
    assert dense.metadata["tokenizer.ggml.tokens"] is None  # too long to show, or to keep
    mixture = known.get(Source("mixture", str(tiny("qwen3moe", "gguf", tmp_path))), OPTIONS).experts
    assert mixture.layers > 0 and 0 < mixture.active < mixture.count
    folder = known.get(Source("folder", str(tiny("qwen2", "huggingface", tmp_path))), OPTIONS)
    assert folder.format == "safetensors" and folder.metadata == {} and folder.architecture == "qwen2"


def test_a_number_that_json_has_not_is_not_told():
    found = _shown({"a": float("nan"), "b": np.float32("inf"), "c": np.array([0.5, np.nan], np.float32), "d": [1.0, 2], "e": 0.5})
    assert found == {"a": None, "b": None, "c": None, "d": [1.0, 2], "e": 0.5}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_they_are_read_once_until_the_file_or_the_context_changes(tmp_path):
    known, path = KnownFacts(), tiny("llama", "gguf", tmp_path)
    source = Source("dense", str(path))
    first = known.get(source, OPTIONS)
    assert known.get(source, OPTIONS) is first
    assert known.get(source, LoadOptions(context=32)).context == 32
    os.utime(path, ns=(1, 1))
    assert known.get(source, OPTIONS) is not first


def test_what_cannot_be_read_has_none(tmp_path):
    known = KnownFacts()
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF but not really")
    assert known.get(Source("broken", str(broken)), OPTIONS) is None
    assert known.get(Source("away", "hf:nobody/has:this.gguf"), OPTIONS) is None
