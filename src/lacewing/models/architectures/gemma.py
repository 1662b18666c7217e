"""Gemma: scaled embeddings, norms of 1 + w, GELU, tied output. Reference: transformers gemma."""

from dataclasses import replace
from typing import Any

import numpy as np

from lacewing.models.architecture import Architecture
from lacewing.models.config import ModelConfig
from lacewing.models.readers.metadata import MetadataReader

DEFAULTS: dict[str, Any] = {
    "rms_norm_eps": 1e-6,
    "head_dim": 256,
    "max_position_embeddings": 8192,
    "vocab_size": 256000,
    "tie_word_embeddings": True,
    "hidden_act": "gelu_pytorch_tanh",
    "activations": {"gelu": "gelu_tanh"},  # in the oldest files "gelu" means the tanh form, too
}


def scaled(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """What the whole family shares. Transformers rounds the factor to the dtype of the embedding, llama.cpp does not."""
    scale, embedding = config.width**0.5, keys.weights.get("token_embd.weight")
    rounded = keys.prefix == "" and embedding is not None and embedding.quant.name == "BF16"
    return replace(config, embedding_scale=_to_bf16(scale) if rounded else scale)


def _to_bf16(value: float) -> float:
    """The nearest, the even one of two."""
    bits = int(np.float32(value).view(np.uint32))
    return float(np.uint32(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) << 16).view(np.float32))


ARCHITECTURE = Architecture(
    name="gemma",
    models="Gemma 1, CodeGemma",
    defaults={"gemma": DEFAULTS},
    huggingface_switches={"norm_offset": 1.0},
    gguf_switches={"activation": "gelu_tanh"},
    huggingface=scaled,
    gguf=scaled,
)
