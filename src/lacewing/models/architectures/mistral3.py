"""Mistral 3 as GGUF names it (Small 3.1 on, Ministral 3, Devstral 2): Llama blocks, with a temperature by position for some.

References: transformers ministral3; llama.cpp's loader; Ollama's convert/convert_mistral.go.
"""

from dataclasses import replace

from lacewing.models.architectures import llama
from lacewing.models.config import AttentionTemperatureConfig, ModelConfig
from lacewing.models.readers.metadata import MetadataReader


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    return _sharpened(config, config.rope.query_beta)


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    return _sharpened(config, keys.number("attention.temperature_scale", 0, low=0, high=1e3))


def _sharpened(config: ModelConfig, beta: float) -> ModelConfig:
    """The temperature changes at each multiple of YaRN's original context."""
    if not beta:
        return config
    return replace(config, attention_temperature=AttentionTemperatureConfig(beta, config.rope.original_context))


ARCHITECTURE = replace(
    llama.ARCHITECTURE,
    name="mistral3",
    models="Ministral 3, Devstral 2 and Devstral Small 2, Mistral Small 3.1 and 3.2 (text)",
    also=("ministral3",),
    mixture=None,
    defaults={
        "mistral3": llama.ARCHITECTURE.defaults["mistral"],
        "ministral3": {
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "head_dim": 128,
            "max_position_embeddings": 262144,
            "vocab_size": 131072,
            "num_key_value_heads": 8,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e6,
                "factor": 16.0,
                "original_max_position_embeddings": 16384,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "llama_4_scaling_beta": 0.1,
            },
        },
    },
    huggingface=huggingface,
    gguf=gguf,
)
