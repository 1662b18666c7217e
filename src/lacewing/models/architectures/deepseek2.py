"""DeepSeek V2, V3, R1, Kimi-K2, GLM-4.7-Flash, Mistral Large 3: latent attention, many experts and shared ones.

References: transformers deepseek_v2, deepseek_v3 and glm4_moe_lite; llama.cpp for what a GGUF file says and leaves out.
"""

import os
from dataclasses import replace
from typing import Any

from lacewing.errors import OptionError
from lacewing.models.architecture import Architecture
from lacewing.models.config import AttentionTemperatureConfig, LatentConfig, MixtureConfig, ModelConfig
from lacewing.models.names import EXPERT_NAMES, STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader
from lacewing.models.rope import RopeConfig, yarn_magnitude

LATENT_NAMES = {
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.kv_b_proj": "attn_kv_b",
}


def mistral_magnitude() -> bool | None:
    """LACEWING_MISTRAL_MAGNITUDE: whether attention of Mistral Large 3 and Small 4 is scaled by the square of YaRN's magnitude.

    "apply", "skip", or nothing: as the makers say, or as transformers does. It is disputed: the makers' configuration of
    Large 3 says no, llama.cpp applies it to both, transformers to Small 4. Raises OptionError for another value.
    """
    value = os.environ.get("LACEWING_MISTRAL_MAGNITUDE", "")
    if value not in ("", "apply", "skip"):
        raise OptionError(f"LACEWING_MISTRAL_MAGNITUDE is {value!r}; it must be apply or skip")
    return None if not value else value == "apply"


def scaled(config: ModelConfig, latent: LatentConfig, rope: RopeConfig, multiplier: float) -> ModelConfig:
    """The scale of attention is that of whole heads, times the square of YaRN's magnitude for `multiplier`."""
    rope = replace(rope, width=latent.rope)
    magnitude = yarn_magnitude(rope.factor, multiplier) if multiplier and rope.kind != "none" else 1.0
    scale = (latent.nope + latent.rope) ** -0.5 * magnitude**2
    return replace(config, rope=rope, local_rope=rope, attention_scale=scale)


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    latent = latent_of(config)
    biases = frozenset({"attn_q_a", "attn_kv_a_mqa", "attn_output"} if keys.flag("attention_bias") else ())
    config = replace(config, biases=biases, adjacent_rope=keys.flag("rope_interleave", True))
    return scaled(config, latent, config.rope, config.rope.log_multiplier)


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    latent, rope = latent_of(config), config.rope
    multiplier = 10 * rope.log_multiplier  # the converter stores 0.1 * mscale_all_dim
    if multiplier:
        rope = replace(rope, magnitude=1.0)  # mscale and mscale_all_dim are equal in every model: they cancel
    if config.mixture is not None:
        config = replace(config, mixture=_completed(keys, config, config.mixture))
    beta = keys.number("attention.temperature_scale", 0, low=0, high=1e3)
    length = keys.integer("attention.temperature_length", 0, low=0, high=2**31)
    if beta or _is_mistral_large_3(config):
        # files of Ollama leave the temperature out
        config = replace(
            config, attention_temperature=AttentionTemperatureConfig(beta or 0.1, length or rope.original_context or 8192)
        )
        multiplier = multiplier if mistral_magnitude() else 0.0  # the makers say that it does not belong there
    return scaled(config, latent, rope, multiplier)


def latent_of(config: ModelConfig) -> LatentConfig:
    if config.latent is None:
        raise ValueError("this architecture is latent")
    return config.latent


def _is_mistral_large_3(config: ModelConfig) -> bool:
    m = config.mixture
    return m is not None and (m.experts, m.gating, config.vocab_size, config.layers) == (128, "softmax", 131072, 61)


def _completed(keys: MetadataReader, config: ModelConfig, m: MixtureConfig) -> MixtureConfig:
    """What older converters left out: the groups of DeepSeek V3, the gating of GLM-4.7-Flash."""
    if "expert_group_count" not in keys and (config.layers, m.experts, config.width) == (61, 256, 7168):
        m = replace(m, groups=8, groups_used=4)
    if "expert_gating_func" not in keys and config.vocab_size == 154880 and config.layers in (47, 48):
        m = replace(m, gating="sigmoid")
    return m


V2: dict[str, Any] = {
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "vocab_size": 102400,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "topk_method": "greedy",
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
V3 = V2 | {
    "max_position_embeddings": 4096,
    "vocab_size": 129280,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 2048,
    "first_k_dense_replace": 3,
    "n_group": 8,
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "num_nextn_predict_layers": 1,
}
GLM_LITE = V3 | {  # GLM-4.7-Flash
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 202752,
    "vocab_size": 154880,
    "n_routed_experts": 64,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 1536,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 1.8,
    "q_lora_rank": 768,
    "qk_nope_head_dim": 192,
    "v_head_dim": 256,
}

ARCHITECTURE = Architecture(
    name="deepseek2",
    models="DeepSeek V2, V2-Lite, V3, V3.1 and R1, Kimi-K2, Moonlight, GLM-4.7-Flash, Mistral Large 3",
    also=("deepseek_v2", "deepseek_v3", "kimi_k2", "glm4_moe_lite", "glm4moelite"),  # the last by Ollama
    names=STANDARD_NAMES | EXPERT_NAMES | LATENT_NAMES,
    gguf_switches={"adjacent_rope": True},
    mixture={},
    latent=True,
    uncounted=("token_embd.weight",),
    defaults={"deepseek_v2": V2, "deepseek_v3": V3, "kimi_k2": V3, "glm4_moe_lite": GLM_LITE},
    huggingface=huggingface,
    gguf=gguf,
)
