"""Kimi Linear of Moonshot: Kimi delta attention in three of four layers, latent attention without RoPE in the fourth, many experts.

References: transformers kimi_linear; the makers' modeling_kimi.py; llama.cpp for what a GGUF file says.
"""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.architectures.deepseek2 import LATENT_NAMES
from lacewing.models.blocks.delta import hybrid_block
from lacewing.models.config import DeltaConfig, ModelConfig
from lacewing.models.names import EXPERT_NAMES, STANDARD_NAMES
from lacewing.models.readers.mamba import by_layer
from lacewing.models.readers.metadata import MetadataReader

NAMES = {
    "self_attn.q_conv1d": "ssm_conv1d_q",
    "self_attn.k_conv1d": "ssm_conv1d_k",
    "self_attn.v_conv1d": "ssm_conv1d_v",
    "self_attn.b_proj": "ssm_beta",
    "self_attn.f_a_proj": "ssm_f_a",
    "self_attn.f_b_proj": "ssm_f_b",
    "self_attn.g_a_proj": "ssm_g_a",
    "self_attn.g_b_proj": "ssm_g_b",
    "self_attn.A_log": "ssm_a.weight",
    "self_attn.dt_bias": "ssm_dt.bias",
    "self_attn.o_norm": "ssm_norm",
    "block_sparse_moe.experts.*.w1": "ffn_gate_exps.*",
    "block_sparse_moe.experts.*.w2": "ffn_down_exps.*",
    "block_sparse_moe.experts.*.w3": "ffn_up_exps.*",
}
EXPERTS = {name.replace("mlp.", "block_sparse_moe."): ours for name, ours in EXPERT_NAMES.items()}
SYNONYMS = {
    "max_position_embeddings": "model_max_length",
    "norm_topk_prob": "moe_renormalize",
    "n_group": "num_expert_group",
    "n_shared_experts": "num_shared_experts",
    "num_experts_per_tok": "num_experts_per_token",
    "scoring_func": "moe_router_activation_func",
}
KINDS = ("full_attention", "linear_attention")


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    keys.get("use_grouped_topk")  # which the makers' code does not look at
    if not keys.flag("mla_use_nope", True):
        raise keys.error("mla_use_nope", "is false, which this version does not know")
    if keys.flag("attention_bias"):
        raise keys.error("attention_bias", "is true, which this version does not know for this architecture")
    if config.activation != "silu":  # it is the convolution's, too
        raise keys.error("hidden_act", f"is {config.activation}; this version knows silu for this architecture")
    inner, kinds = keys.nested("linear_attn_config"), keys.get("layer_types")
    if inner is None:  # as transformers has it
        sizes = _sizes(keys, "linear_num_heads", "linear_head_dim", "linear_conv_kernel_dim")
        layers = tuple(layer == 0 or layer % 4 != 0 for layer in range(config.layers))
    else:
        sizes = _sizes(inner, "num_heads", "head_dim", "short_conv_kernel_size")
        layers = _listed_layers(inner, config.layers)
        inner.refuse_unknown(inner.unread(), {})  # such as what Kimi K3 has beyond it
    if kinds is not None:
        layers = tuple(kind == "linear_attention" for kind in keys.words("layer_types", config.layers, KINDS))
    return _hybrid(config, layers, sizes, log_rate=True)


def _sizes(keys: MetadataReader, heads: str, width: str, kernel: str) -> tuple[int, int, int]:
    return keys.integer(heads, high=2**12), keys.integer(width, high=2**12), keys.integer(kernel, low=2, high=64)


def _listed_layers(keys: MetadataReader, layers: int) -> tuple[bool, ...]:
    """Which layers have Kimi delta attention; both lists count from 1."""
    delta, full = keys.get("kda_layers"), keys.get("full_attn_layers")
    known = all(isinstance(listed, list) and all(type(layer) is int for layer in listed) for listed in (delta, full))
    if not known or sorted([*delta, *full]) != list(range(1, layers + 1)):
        raise keys.error("kda_layers", f"and full_attn_layers must name each of the {layers} layers once")
    return tuple(layer + 1 in delta for layer in range(layers))


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """Layers of 0 key heads have Kimi delta attention, with as many heads as attention."""
    layers = tuple(count == 0 for count in by_layer(keys, "attention.head_count_kv", config.layers))
    sizes = config.heads, keys.integer("kda.head_dim", high=2**12), keys.integer("ssm.conv_kernel", low=2, high=64)
    return _hybrid(config, layers, sizes, log_rate=False)


def _hybrid(config: ModelConfig, layers: tuple[bool, ...], sizes: tuple[int, int, int], log_rate: bool) -> ModelConfig:
    heads, width, kernel = sizes
    delta = DeltaConfig(layers, kernel, heads, heads, width, width, log_rate=log_rate, gate_rank=width)
    return replace(config, delta=delta, nope_layers=frozenset(range(config.layers)))


ARCHITECTURE = Architecture(
    name="kimi-linear",
    models="Kimi-Linear-48B-A3B",
    also=("kimi_linear",),
    names=STANDARD_NAMES | LATENT_NAMES | EXPERTS | NAMES,
    synonyms=SYNONYMS,
    gguf_names={"blk.*.ssm_a": "blk.*.ssm_a.weight"},
    gguf_defaults={"expert_weights_norm": True},
    mixture={"bias": True},
    latent=True,
    hybrid=True,
    uncounted=("token_embd.weight",),
    block=hybrid_block,
    defaults={
        "kimi_linear": {
            "vocab_size": 163840,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 27,
            "num_attention_heads": 32,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 2**20,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "linear_num_heads": 32,
            "linear_head_dim": 128,
            "linear_conv_kernel_dim": 4,
            "num_experts": 256,
            "num_experts_per_tok": 8,
            "n_shared_experts": 1,
            "moe_intermediate_size": 1024,
            "first_k_dense_replace": 1,
            "scoring_func": "sigmoid",
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.446,
            "layer_kinds": ("linear_attention",),
        }
    },
    huggingface=huggingface,
    gguf=gguf,
)
