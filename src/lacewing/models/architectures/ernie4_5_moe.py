"""ERNIE 4.5 of Baidu with experts: a softmax router with a bias, shared experts as one. Reference: transformers ernie4_5_moe."""

from dataclasses import replace

from lacewing.models.architectures import ernie4_5
from lacewing.models.config import ModelConfig
from lacewing.models.names import EXPERT_NAMES, STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """The last layers may be dense as well as the first."""
    keys.get("moe_norm_min")  # of the sum of weights, which is never so small
    end, m = keys.integer("moe_layer_end_index", -1, low=-1), config.mixture
    if keys.flag("use_bias"):
        raise keys.error("use_bias", "is true, which this version does not know for experts")
    if m is None or end < 0:
        return config
    return replace(config, mixture=replace(m, layers=tuple(mixed and layer <= end for layer, mixed in enumerate(m.layers))))


ARCHITECTURE = replace(
    ernie4_5.ARCHITECTURE,
    name="ernie4_5-moe",
    models="ERNIE-4.5-21B-A3B and 300B-A47B (text)",
    also=("ernie4_5_moe",),
    names=STANDARD_NAMES | EXPERT_NAMES | {"mlp.moe_statics.e_score_correction_bias": "exp_probs_b.bias"},
    synonyms={
        "num_experts_per_tok": "moe_k",
        "num_experts": "moe_num_experts",
        "n_shared_experts": "moe_num_shared_experts",
        "first_k_dense_replace": "moe_layer_start_index",
        "decoder_sparse_step": "moe_layer_interval",
    },
    mixture={"bias": True, "renormalise": True},
    defaults={
        "ernie4_5_moe": ernie4_5.DEFAULTS
        | {
            "num_key_value_heads": 4,
            "moe_intermediate_size": 1536,
            "num_experts": 64,
            "num_experts_per_tok": 6,
            "n_shared_experts": 2,
            "first_k_dense_replace": 1,
            "decoder_sparse_step": 1,
        }
    },
    huggingface=huggingface,
)
