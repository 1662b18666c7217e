"""ERNIE 4.5 of Baidu, dense: Llama blocks that rotate adjacent pairs. Reference: transformers ernie4_5."""

from dataclasses import replace
from typing import Any

from lacewing.models.architecture import Architecture
from lacewing.models.config import ModelConfig
from lacewing.models.readers.metadata import MetadataReader

DEFAULTS: dict[str, Any] = {
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "vocab_size": 103424,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
}
_LINEARS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    return replace(config, biases=frozenset(_LINEARS if keys.flag("use_bias") else ()))


ARCHITECTURE = Architecture(
    name="ernie4_5",
    models="ERNIE-4.5-0.3B",
    switches={"adjacent_rope": True},
    defaults={"ernie4_5": DEFAULTS | {"num_key_value_heads": 2, "head_dim": 128}},
    huggingface=huggingface,
)
