"""EXAONE 4 of LG: norms on what attention and feed-forward give, normed heads, RoPE only in layers with a window if there are any.

References: transformers exaone4; llama.cpp for what a GGUF file says.
"""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.config import ModelConfig
from lacewing.models.names import POST_NORM_NAMES, QK_NORM_NAMES, STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader


def without_global_rope(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """In both formats: where some layers have windows, the others have no rotation."""
    if not any(config.windows):
        return config
    return replace(config, nope_layers=frozenset(layer for layer, window in enumerate(config.windows) if window is None))


DEFAULTS = {
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "vocab_size": 102400,
    "num_key_value_heads": 32,
    "sliding_window": 4096,
    "sliding_window_pattern": 4,
}

ARCHITECTURE = Architecture(
    name="exaone4",
    models="EXAONE 4.0 1.2B and 32B, EXAONE 4.5 (text)",
    also=("exaone4_5_text",),
    names=STANDARD_NAMES | QK_NORM_NAMES | POST_NORM_NAMES,
    switches={"pre_norms": False, "post_norms": True, "qk_norm": True},
    defaults={"exaone4": DEFAULTS, "exaone4_5_text": DEFAULTS},
    gguf_defaults={"attention.sliding_window_pattern": 4},
    huggingface=without_global_rope,
    gguf=without_global_rope,
)
