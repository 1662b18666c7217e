"""Granite 3 and the dense ones of 4: Llama blocks with factors on embeddings, residual branches, attention and logits.

References: transformers granite; llama.cpp for what a GGUF file says.
"""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.config import ModelConfig
from lacewing.models.readers.metadata import MetadataReader

DEFAULTS = {
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "vocab_size": 32000,
    "embedding_multiplier": 1.0,
    "residual_multiplier": 1.0,
    "attention_multiplier": 1.0,
    "logits_scaling": 1.0,
}


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    embedding, residual, attention, logits = (
        keys.number(name, 1, low=1e-6, high=1e6)
        for name in ("embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling")
    )
    return replace(config, embedding_scale=embedding, residual_scale=residual, attention_scale=attention, logits_scale=1 / logits)


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """A factor of 0 is none, as in llama.cpp. Granite 4 turns the rotation off by a key that says nothing of it elsewhere."""
    embedding, residual, logits = (
        keys.number(name, 1, low=0, high=1e6) or 1.0 for name in ("embedding_scale", "residual_scale", "logit_scale")
    )
    rotated = keys.flag("rope.scaling.finetuned", True)
    return replace(
        config,
        embedding_scale=embedding,
        residual_scale=residual,
        logits_scale=1 / logits,
        nope_layers=frozenset() if rotated else frozenset(range(config.layers)),
    )


ARCHITECTURE = Architecture(
    name="granite",
    models="Granite 3.x and the dense models of Granite 4",
    gguf_switches={"adjacent_rope": True},  # the converter permutes the rows of q and k
    defaults={"granite": DEFAULTS},
    huggingface=huggingface,
    gguf=gguf,
)
