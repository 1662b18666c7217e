"""OLMo 2 and 3: norms on what attention and feed-forward give, not on what they get, and over all query heads together.

References: transformers olmo2 and olmo3; llama.cpp for what a GGUF file says.
"""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.config import ModelConfig
from lacewing.models.names import POST_NORM_NAMES, QK_NORM_NAMES, STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader
from lacewing.models.rope import RopeConfig


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """Rope scaling is that of the layers without a window, unless there is one for each kind of layer."""
    kinds = keys.nested("rope_parameters")
    return config if kinds is not None and "sliding_attention" in kinds else _plain_windows(config)


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    return config if "rope.freq_base_swa" in keys else _plain_windows(config)


def _plain_windows(config: ModelConfig) -> ModelConfig:
    return replace(config, local_rope=RopeConfig(config.rope.width, config.rope.base))


DEFAULTS = {"rms_norm_eps": 1e-5, "hidden_act": "silu", "max_position_embeddings": 2048, "vocab_size": 50304}

ARCHITECTURE = Architecture(
    name="olmo2",
    models="OLMo 2, OLMo 3 and 3.1",
    also=("olmo3",),
    names=STANDARD_NAMES | QK_NORM_NAMES | POST_NORM_NAMES,
    switches={"pre_norms": False, "post_norms": True, "whole_qk_norm": True},
    defaults={
        "olmo2": DEFAULTS,
        "olmo3": DEFAULTS | {"sliding_window": 4096, "sliding_window_pattern": 4, "rope_theta": 500000.0},
    },
    huggingface=huggingface,
    gguf=gguf,
)
