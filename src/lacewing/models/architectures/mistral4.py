"""Mistral Small 4: DeepSeek blocks, a softmax router and a temperature by position. Reference: transformers mistral4."""

from dataclasses import replace

from lacewing.models.architectures import deepseek2
from lacewing.models.config import AttentionTemperatureConfig, ModelConfig
from lacewing.models.readers.metadata import MetadataReader


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    config = _scaled(deepseek2.huggingface(keys, config), config.rope.log_multiplier)
    if not config.rope.query_beta:
        return config
    return replace(config, attention_temperature=AttentionTemperatureConfig(config.rope.query_beta, config.rope.original_context))


def _scaled(config: ModelConfig, multiplier: float) -> ModelConfig:
    """The magnitude of YaRN is applied, as transformers does, unless a person asks for the opposite."""
    multiplier = 0.0 if deepseek2.mistral_magnitude() is False else multiplier
    return deepseek2.scaled(config, deepseek2.latent_of(config), config.rope, multiplier)


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """The converter leaves the temperature out."""
    config = _scaled(deepseek2.gguf(keys, config), 10 * config.rope.log_multiplier)
    if config.attention_temperature is None and config.rope.kind == "yarn":
        config = replace(config, attention_temperature=AttentionTemperatureConfig(0.1, config.rope.original_context))
    return config


ARCHITECTURE = replace(
    deepseek2.ARCHITECTURE,
    name="mistral4",
    also=(),
    models="Mistral Small 4 (text)",
    huggingface=huggingface,
    gguf=gguf,
    mixture={"group_best": 2},
    defaults={
        "mistral4": deepseek2.V2
        | {
            "max_position_embeddings": 1048576,
            "vocab_size": 131072,
            "n_routed_experts": 128,
            "n_shared_experts": 1,
            "num_experts_per_tok": 4,
            "moe_intermediate_size": 2048,
            "topk_method": "plain",
            "norm_topk_prob": True,
            "kv_lora_rank": 256,
            "q_lora_rank": 1024,
            "qk_nope_head_dim": 64,
        }
    },
)
