"""Command R, R+ and Aya: LayerNorm without a bias, attention and feed-forward in parallel, rotation of neighbours.

References: transformers cohere; llama.cpp for what a GGUF file says.
"""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.config import ModelConfig
from lacewing.models.names import QK_NORM_NAMES, STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader

DEFAULTS = {
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "max_position_embeddings": 8192,
    "vocab_size": 256000,
    "tie_word_embeddings": True,
}


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    return replace(
        config,
        logits_scale=keys.number("logit_scale", 0.0625, low=1e-6, high=1e6),
        qk_norm=keys.flag("use_qk_norm"),
    )


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    return replace(config, logits_scale=keys.number("logit_scale", 1, low=0, high=1e6) or 1.0)


ARCHITECTURE = Architecture(
    name="command-r",
    models="Command R and R+, Aya 23 and Expanse",
    also=("cohere",),
    names=STANDARD_NAMES | QK_NORM_NAMES,
    synonyms={"rms_norm_eps": "layer_norm_eps"},
    switches={"layer_norm": True, "parallel": True, "adjacent_rope": True, "own_qk_norm": True},
    gguf_presence={"qk_norm": "blk.0.attn_q_norm.weight"},
    defaults={"cohere": DEFAULTS | {"rope_theta": 500000.0}},
    huggingface=huggingface,
    gguf=gguf,
)
