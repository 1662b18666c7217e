"""Gemma 3: Gemma 2 with head norms instead of soft-caps, 5 windowed layers to 1, two rope bases. Reference: transformers gemma3."""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.architectures import gemma, gemma2
from lacewing.models.config import ModelConfig
from lacewing.models.names import POST_NORM_NAMES, QK_NORM_NAMES, STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    if config.layers == 62:  # 27B, the one model whose scale is not that of its heads; the file does not say it
        config = replace(config, attention_scale=(config.width / config.heads) ** -0.5)
    return gemma2.softcaps(keys, gemma.scaled(keys, config), "attn_logit_softcapping", "final_logit_softcapping")


DEFAULTS = gemma.DEFAULTS | {
    "max_position_embeddings": 131072,
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
    "rope_theta": 1e6,
    "rope_local_base_freq": 1e4,
}

ARCHITECTURE = Architecture(
    name="gemma3",
    names=STANDARD_NAMES | POST_NORM_NAMES | QK_NORM_NAMES,
    switches={"post_norms": True, "qk_norm": True},
    huggingface_switches={"norm_offset": 1.0},
    gguf_switches={"activation": "gelu_tanh"},
    defaults={"gemma3_text": DEFAULTS, "gemma3": DEFAULTS},
    gguf_defaults={"attention.sliding_window_pattern": 6, "rope.freq_base_swa": 1e4, "rope.freq_base": 1e6},
    huggingface=gemma2.huggingface,
    gguf=gguf,
)
