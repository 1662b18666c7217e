"""Ling and Ring 2.0 of Ant: one weight for q, k and v, normed heads, half of them rotated, a sigmoid router in groups with a bias.

Reference: the makers' modeling_bailing_moe_v2.py, whose maths is that of transformers' glm4_moe; llama.cpp. Ling 1.5 has the same
model type and names: a softmax router, no norms of heads, all values rotated.
"""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.config import ModelConfig
from lacewing.models.names import EXPERT_NAMES, STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader

NAMES = {
    "word_embeddings": "token_embd",
    "attention.query_key_value": "attn_qkv",
    "attention.dense": "attn_output",
    "attention.query_layernorm": "attn_q_norm",
    "attention.key_layernorm": "attn_k_norm",
    "mlp.gate.expert_bias": "exp_probs_b.bias",
}
UNUSED = ("embedding_dropout", "output_dropout", "mtp_loss_scaling_factor", "router_dtype", "router_type",
          "moe_router_enable_routed_scaling")  # fmt: skip


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    for name in UNUSED:
        keys.get(name)
    for name in ("norm_head", "norm_softmax"):
        if keys.flag(name):
            raise keys.error(name, "is true, which this version does not know")
    config = replace(config, qk_norm=keys.flag("use_qk_norm"), biases=_biases(keys))
    m = config.mixture
    if m is None:
        return config
    shared = keys.integer("moe_shared_expert_intermediate_size", m.width) * keys.integer("num_shared_experts", 0, low=0, high=2**10)
    if not keys.flag("moe_router_enable_shared_expert", True):
        shared = 0
    bias = keys.flag("moe_router_enable_expert_bias", m.gating == "sigmoid")
    return replace(config, mixture=replace(m, bias=bias, shared_width=shared))


def _biases(keys: MetadataReader) -> frozenset[str]:
    found = {"attn_qkv"} if keys.flag("use_qkv_bias") else set()
    if keys.flag("use_bias"):
        found |= {"attn_output", "ffn_gate", "ffn_up", "ffn_down"}
    return frozenset(found)


DEFAULTS = {
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "vocab_size": 157184,
    "num_experts": 256,
    "norm_topk_prob": True,
}

ARCHITECTURE = Architecture(
    name="bailingmoe2",
    models="Ling 2.0 and Ring 2.0 (mini, flash, 1T); Ling 1.5 from Hugging Face",
    also=("bailing_moe", "bailing_moe_v2"),
    names=STANDARD_NAMES | EXPERT_NAMES | NAMES,
    synonyms={"scoring_func": "score_function"},
    switches={"fused_qkv": True},
    gguf_switches={"qk_norm": True},
    mixture={"group_best": 2},
    gguf_defaults={"expert_gating_func": 2},
    defaults={"bailing_moe": DEFAULTS, "bailing_moe_v2": DEFAULTS},
    huggingface=huggingface,
)
