"""Qwen 1.5 and 2 with experts: Qwen 2 blocks, a router that does not renormalise, a gated shared expert.

Reference: transformers qwen2_moe.
"""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.architectures import qwen2
from lacewing.models.config import ModelConfig
from lacewing.models.names import EXPERT_NAMES, STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader

_BIASES = qwen2.ARCHITECTURE.biases


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """Where windows are used and layers are not listed, every other of the first ones has one."""
    config = replace(config, biases=config.biases | _BIASES if keys.flag("qkv_bias", True) else config.biases - _BIASES)
    window = keys.integer("sliding_window", 0, low=0, high=2**31) or None
    if not keys.flag("use_sliding_window") or keys.get("layer_types") is not None:
        return config
    first = keys.integer("max_window_layers", low=0)
    windows = tuple(window if layer % 2 == 0 and layer < first else None for layer in range(config.layers))
    return replace(config, windows=windows)


ARCHITECTURE = Architecture(
    name="qwen2moe",
    models="Qwen1.5-MoE, Qwen2-57B-A14B",
    also=("qwen2_moe",),
    names=STANDARD_NAMES | EXPERT_NAMES,
    biases=_BIASES,
    mixture={"shared_gate": True},
    defaults={
        "qwen2_moe": qwen2.DEFAULTS
        | {
            "num_key_value_heads": 16,
            "num_experts": 60,
            "num_experts_per_tok": 4,
            "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
        }
    },
    huggingface=huggingface,
)
