"""LFM2 of Liquid AI: gated short convolutions, attention in some layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.families.family import Arrays, Config, Family, renamed

_BASE = {
    "model_type": "lfm2",
    "num_hidden_layers": 4,
    "layer_types": ["conv", "full_attention", "conv", "conv"],
    "conv_L_cache": 3,
    "conv_bias": False,
    "norm_eps": 1e-3,
    "block_auto_adjust_ff_dim": True,
    "block_ffn_dim_multiplier": 1.0,
    "block_multiple_of": 32,
    "block_ff_dim": 160,  # wins over intermediate_size, and comes to 128
    "tie_word_embeddings": True,
    "rope_theta": 1000000.0,
}
_MIXTURE = {
    "model_type": "lfm2_moe",
    "num_hidden_layers": 4,
    "layer_types": ["conv", "full_attention", "conv", "full_attention"],
    "conv_L_cache": 3,
    "conv_bias": False,
    "norm_eps": 1e-3,
    "rms_norm_eps": 1e-3,  # which llama.cpp's converter prefers
    "num_dense_layers": 2,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "norm_topk_prob": True,
    "use_expert_bias": True,
    "routed_scaling_factor": 1.0,
    "tie_word_embeddings": True,
    "rope_theta": 1000000.0,
}
NAMES = {
    "embed_tokens": "token_embd", "embedding_norm": "token_embd_norm", "lm_head": "output", "operator_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
    "conv.in_proj": "shortconv.in_proj", "conv.conv": "shortconv.conv", "conv.out_proj": "shortconv.out_proj",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.out_proj": "attn_output",
    "self_attn.q_layernorm": "attn_q_norm", "self_attn.k_layernorm": "attn_k_norm", "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down", "feed_forward.w3": "ffn_up", "feed_forward.gate": "ffn_gate_inp",
}  # fmt: skip


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    d, h, k, taps = (config[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads", "conv_L_cache"))
    f, c = feed_forward(config), d // h
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], d),
        "model.embedding_norm.weight": (d,),
    }
    for layer, kind in enumerate(layers(config)):
        block: dict[str, tuple[int, ...]] = {"operator_norm.weight": (d,), "ffn_norm.weight": (d,)}
        block |= _mixture(config, d) if layer >= config.get("num_dense_layers", len(kind) + layer) else _gated("feed_forward", f, d)
        if kind == "conv":
            block |= {"conv.in_proj.weight": (3 * d, d), "conv.conv.weight": (d, 1, taps), "conv.out_proj.weight": (d, d)}
            if config["conv_bias"]:
                block |= {"conv.in_proj.bias": (3 * d,), "conv.conv.bias": (d,), "conv.out_proj.bias": (d,)}
        else:
            block |= {f"self_attn.{name}_proj.weight": (heads * c, d) for name, heads in (("q", h), ("k", k), ("v", k))}
            block |= {"self_attn.out_proj.weight": (d, h * c)}
            block |= {f"self_attn.{name}_layernorm.weight": (c,) for name in ("q", "k")}
        found |= {f"model.layers.{layer}.{part}": shape for part, shape in block.items()}
    return found if config["tie_word_embeddings"] else found | {"lm_head.weight": (config["vocab_size"], d)}


def _gated(prefix: str, f: int, d: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.{name}.weight": shape for name, shape in (("w1", (f, d)), ("w2", (d, f)), ("w3", (f, d)))}


def _mixture(config: Config, d: int) -> dict[str, tuple[int, ...]]:
    experts = config["num_experts"]
    found = {"feed_forward.gate.weight": (experts, d), "feed_forward.expert_bias": (experts,)}
    for expert in range(experts):
        found |= _gated(f"feed_forward.experts.{expert}", config["moe_intermediate_size"], d)
    return found


def layers(config: Config) -> list[str]:
    """What each layer is: "conv" or "full_attention"."""
    listed = config["layer_types"]
    found = range(config["num_hidden_layers"])
    return listed or ["full_attention" if layer in config["full_attn_idxs"] else "conv" for layer in found]


def feed_forward(config: Config) -> int:
    """F of the weights, which is not the F of the config."""
    if "num_experts" in config:
        return int(config["intermediate_size"])
    width, multiple = config["block_ff_dim"], config["block_multiple_of"]
    if not config["block_auto_adjust_ff_dim"]:
        return int(width)
    return -(-int(config["block_ffn_dim_multiplier"] * int(2 * width / 3)) // multiple) * int(multiple)


def metadata(config: Config) -> dict[str, Any]:
    key_heads = [config["num_key_value_heads"] * (kind != "conv") for kind in layers(config)]
    keys = {"attention.head_count_kv": key_heads, "attention.layer_norm_rms_epsilon": config["norm_eps"],
            "feed_forward_length": feed_forward(config), "shortconv.l_cache": config["conv_L_cache"]}  # fmt: skip
    if "num_experts" in config:
        keys |= {"expert_count": config["num_experts"], "expert_used_count": config["num_experts_per_tok"], "expert_gating_func": 2,
                 "expert_feed_forward_length": config["moe_intermediate_size"],
                 "leading_dense_block_count": config["num_dense_layers"]}  # fmt: skip
    return keys


def tensors(config: Config, weights: Arrays) -> Arrays:
    single = {name: value for name, value in weights.items() if ".experts." not in name and not name.endswith("expert_bias")}
    found = renamed(single, NAMES)
    for layer in range(config.get("num_dense_layers", len(layers(config))), len(layers(config))):
        prefix, block = f"model.layers.{layer}.feed_forward", f"blk.{layer}"
        found[f"{block}.exp_probs_b.bias"] = weights[f"{prefix}.expert_bias"]
        for theirs, ours in (("w1", "gate"), ("w3", "up"), ("w2", "down")):
            experts = [weights[f"{prefix}.experts.{expert}.{theirs}.weight"] for expert in range(config["num_experts"])]
            found[f"{block}.ffn_{ours}_exps.weight"] = np.stack(experts)
    return {name: value.squeeze(1) if name.endswith("shortconv.conv.weight") else value for name, value in found.items()}


FAMILY = Family(
    types={"lfm2": ("lfm2", "Lfm2ForCausalLM"), "lfm2_moe": ("lfm2moe", "Lfm2MoeForCausalLM")},
    cases={
        "lfm2": _BASE,
        "lfm2-biases": _BASE
        | {"layer_types": None, "full_attn_idxs": [2], "conv_L_cache": 5, "conv_bias": True, "block_auto_adjust_ff_dim": False}
        | {"tie_word_embeddings": False, "num_key_value_heads": 1, "rope_theta": 500.0},
        "lfm2moe": _MIXTURE,
    },
    shapes=shapes,
    metadata=metadata,
    tensors=tensors,
    only_huggingface=("lfm2-biases",),
)
