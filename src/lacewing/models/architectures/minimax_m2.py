"""MiniMax-M2: a norm over all query heads together, partial rotation, a sigmoid router with a bias.

Reference: transformers minimax_m2.
"""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.architectures.llama import MIXTRAL_NAMES
from lacewing.models.config import ModelConfig
from lacewing.models.names import QK_NORM_NAMES, STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """The width that is rotated is a number of its own in the makers' files; modules for prediction are not in them."""
    for name in ("use_mtp", "num_mtp_modules", "mtp_transformer_layers", "shared_moe_mode"):
        keys.get(name)
    if not keys.flag("use_qk_norm", True) or keys.get("qk_norm_type", "per_layer") != "per_layer":
        raise keys.error("qk_norm_type", "is not per_layer, or use_qk_norm is false, which this version does not know")
    if keys.get("attn_type_list") is not None and not all(keys.flags("attn_type_list", config.layers)):
        raise keys.error("attn_type_list", "has layers of linear attention, which this version does not know")
    width = keys.optional_integer("rotary_dim")
    if width is None or "partial_rotary_factor" in keys or "rope_parameters" in keys:
        return config
    return replace(config, rope=replace(config.rope, width=width), local_rope=replace(config.local_rope, width=width))


ARCHITECTURE = Architecture(
    name="minimax-m2",
    models="MiniMax-M2, M2.1, M2.5 and M2.7",
    also=("minimax_m2",),
    names=STANDARD_NAMES | QK_NORM_NAMES | MIXTRAL_NAMES | {"block_sparse_moe.e_score_correction_bias": "exp_probs_b.bias"},
    switches={"whole_qk_norm": True},
    mixture={"gating": "sigmoid", "bias": True, "renormalise": True},
    defaults={
        "minimax_m2": {
            "rms_norm_eps": 1e-6,
            "hidden_act": "silu",
            "head_dim": 128,
            "max_position_embeddings": 196608,
            "vocab_size": 200064,
            "num_key_value_heads": 8,
            "rope_theta": 5e6,
            "num_local_experts": 256,
            "num_experts_per_tok": 8,
        }
    },
    huggingface=huggingface,
)
