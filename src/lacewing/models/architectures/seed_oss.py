"""Seed-OSS of ByteDance: Llama blocks with a bias on q, k and v and heads of their own width. Reference: transformers seed_oss."""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.config import ModelConfig
from lacewing.models.names import STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """The bias of the output has a switch of its own."""
    keys.get("residual_dropout")
    output = frozenset({"attn_output"})
    return replace(config, biases=config.biases | output if keys.flag("attention_out_bias") else config.biases - output)


ARCHITECTURE = Architecture(
    name="seed_oss",
    models="Seed-OSS-36B",
    names=STANDARD_NAMES | {"post_attention_layernorm": "post_attention_norm"},
    switches={"feed_forward_norm": "post_attention_norm"},
    defaults={
        "seed_oss": {
            "rms_norm_eps": 1e-6,
            "hidden_act": "silu",
            "attention_bias": True,
            "head_dim": 128,
            "max_position_embeddings": 524288,
            "vocab_size": 155136,
            "num_key_value_heads": 8,
        }
    },
    huggingface=huggingface,
)
