"""Gemma 2: Gemma with norms after each branch, soft-caps, every other layer windowed. Reference: transformers gemma2."""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.architectures import gemma
from lacewing.models.config import ModelConfig
from lacewing.models.names import POST_NORM_NAMES, STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader


def softcaps(keys: MetadataReader, config: ModelConfig, attention: str, final: str) -> ModelConfig:
    """With what both formats name differently; 0 and null mean none."""
    of_scores, of_logits = (keys.optional_number(name, low=0, high=1e6) or None for name in (attention, final))
    return replace(config, attention_softcap=of_scores, final_softcap=of_logits)


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    scale = keys.number("query_pre_attn_scalar", low=1e-6, high=1e9) ** -0.5
    config = replace(gemma.scaled(keys, config), attention_scale=scale)
    return softcaps(keys, config, "attn_logit_softcapping", "final_logit_softcapping")


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    if config.layers == 46:  # 27B, the one model whose scale is not that of its heads; the file does not say it
        config = replace(config, attention_scale=(config.width / config.heads) ** -0.5)
    return softcaps(keys, gemma.scaled(keys, config), "attn_logit_softcapping", "final_logit_softcapping")


ARCHITECTURE = Architecture(
    name="gemma2",
    models="Gemma 2",
    names=STANDARD_NAMES | POST_NORM_NAMES,
    switches={"post_norms": True},
    huggingface_switches={"norm_offset": 1.0},
    gguf_switches={"activation": "gelu_tanh"},
    defaults={
        "gemma2": gemma.DEFAULTS
        | {
            "sliding_window": 4096,
            "sliding_window_pattern": 2,
            "query_pre_attn_scalar": 256,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        }
    },
    gguf_defaults={
        "attention.sliding_window": 4096,
        "attention.sliding_window_pattern": 2,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    huggingface=huggingface,
    gguf=gguf,
)
