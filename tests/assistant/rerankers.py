"""A tiny reranker, as llama.cpp's converter writes Qwen3's: the head's rows of "yes" and "no" apart, with the pooling "rank"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.checkpoint_files import metadata, tensors, write_gguf_tensors
from tests.checkpoints import config_of, weights_of

YES, NO = 88, 77  # tokens whose rows of the head decide


def reranker(path: Path, labels: tuple[str, ...] = ("yes", "no"), quant: str = "F32", **keys: Any) -> Path:
    """A GGUF file of Qwen3's architecture; `labels`: what the rows stand for, in their order."""
    config = config_of("qwen3") | {"max_position_embeddings": 2048, "hidden_size": 64}
    found = tensors(config, weights_of(config), "qwen3")
    rows = {"yes": YES, "no": NO}
    found["cls.output.weight"] = np.stack([found["output.weight"][rows.get(label, 0)] for label in labels])
    known = metadata(config) | {"pooling_type": 4, "classifier.output_labels": list(labels)} | keys
    return write_gguf_tensors(path, "qwen3", known, found, quant)
