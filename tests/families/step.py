"""Step 3.5 of StepFun: windows with more heads, a gate for each head, experts and feed-forwards with limits."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.families.family import ATTENTION_NAMES, Arrays, Config, Family, attention_shapes, of_layers, renamed

_KINDS = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
_STEP = {
    "model_type": "step3p5", "num_hidden_layers": 4, "num_attention_heads": 4, "num_attention_groups": 2, "head_dim": 32,
    "attention_other_setting": {"attention_type": "sliding_attention", "num_attention_heads": 6, "num_attention_groups": 2,
                                "head_dim": 32},
    "layer_types": _KINDS, "sliding_window": 8, "rope_theta": [500000.0, 10000.0, 10000.0, 500000.0],
    "partial_rotary_factors": [0.5, 1.0, 1.0, 0.5], "yarn_only_types": ["full_attention"],
    "rope_scaling": {"rope_type": "llama3", "factor": 2.0, "original_max_position_embeddings": 32, "low_freq_factor": 1.0,
                     "high_freq_factor": 32.0},
    "moe_layers_enum": "1,2,3", "use_moe": True, "moe_num_experts": 8, "moe_top_k": 3, "moe_intermediate_size": 32,
    "share_expert_dim": 48, "moe_every_n_layer": 1, "moe_layer_offset": 0, "moe_router_activation": "sigmoid",
    "norm_expert_weight": True, "moe_router_scaling_factor": 3.0, "use_moe_router_bias": True, "need_fp32_gate": True,
    "use_head_wise_attn_gate": True, "use_qk_norm": True, "zero_centered": True, "att_impl_type": "GQA",
    "swiglu_limits": [0.0, 0.0, 0.3, 0.2], "swiglu_limits_shared": [0.25, 0.0, None, 0.4],
}  # fmt: skip
_PLAIN = _STEP | {"rope_scaling": None, "swiglu_limits": None, "swiglu_limits_shared": None, "moe_layers_enum": "0,1,2,3",
                  "attention_other_setting": None, "max_position_embeddings": 512}  # fmt: skip
NAMES = ATTENTION_NAMES | {
    "self_attn.g_proj": "attn_gate", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "moe.gate":
    "ffn_gate_inp", "moe.gate_proj": "ffn_gate_exps", "moe.up_proj": "ffn_up_exps", "moe.down_proj": "ffn_down_exps",
    "share_expert.gate_proj": "ffn_gate_shexp", "share_expert.up_proj": "ffn_up_shexp", "share_expert.down_proj":
    "ffn_down_shexp",
}  # fmt: skip


def heads(config: Config, layer: int) -> int:
    local = config["layer_types"][layer] == "sliding_attention"
    return (config["attention_other_setting"] if local and config["attention_other_setting"] else config)["num_attention_heads"]


def mixtures(config: Config) -> list[bool]:
    return [str(layer) in config["moe_layers_enum"].split(",") for layer in range(config["num_hidden_layers"])]


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    d, f, e, c = config["hidden_size"], config["moe_intermediate_size"], config["moe_num_experts"], config["head_dim"]
    found = of_layers(config, {})
    for layer, mixed in enumerate(mixtures(config)):
        h, place = heads(config, layer), f"model.layers.{layer}."
        block = attention_shapes(config | {"num_attention_heads": h, "num_key_value_heads": config["num_attention_groups"]})
        block |= {"self_attn.g_proj.weight": (h, d), "self_attn.q_norm.weight": (c,), "self_attn.k_norm.weight": (c,)}
        block |= {"input_layernorm.weight": (d,), "post_attention_layernorm.weight": (d,)}
        if mixed:
            block |= {"moe.gate.weight": (e, d), "moe.router_bias": (e,), "moe.gate_proj.weight": (e, f, d),
                      "moe.up_proj.weight": (e, f, d), "moe.down_proj.weight": (e, d, f)}  # fmt: skip
        prefix, width = ("share_expert", config["share_expert_dim"]) if mixed else ("mlp", config["intermediate_size"])
        parts = {"gate_proj": (width, d), "up_proj": (width, d), "down_proj": (d, width)}
        block |= {f"{prefix}.{part}.weight": shape for part, shape in parts.items()}
        found |= {place + name: shape for name, shape in block.items()}
    return found


def metadata(config: Config) -> dict[str, Any]:
    layers, local = range(config["num_hidden_layers"]), [kind == "sliding_attention" for kind in config["layer_types"]]
    keys: dict[str, Any] = {
        "attention.head_count": [heads(config, layer) for layer in layers], "attention.head_count_kv":
        [config["num_attention_groups"]] * len(layers), "attention.sliding_window_pattern": local,
        "rope.freq_base": config["rope_theta"][0], "rope.freq_base_swa": config["rope_theta"][1],
        "expert_count": config["moe_num_experts"], "expert_used_count": config["moe_top_k"],
        "expert_feed_forward_length": config["moe_intermediate_size"],
        "expert_shared_feed_forward_length": config["share_expert_dim"],
        "expert_weights_scale": config["moe_router_scaling_factor"], "expert_weights_norm": config["norm_expert_weight"],
        "leading_dense_block_count": mixtures(config).index(True), "moe_every_n_layers": config["moe_every_n_layer"],
    }  # fmt: skip
    for name, theirs in (("swiglu_clamp_exp", "swiglu_limits"), ("swiglu_clamp_shexp", "swiglu_limits_shared")):
        if config[theirs] is not None:
            keys[name] = [float(limit or 0) for limit in config[theirs]]
    return keys


def tensors(config: Config, weights: Arrays) -> Arrays:
    biases = {name: value for name, value in weights.items() if name.endswith("router_bias")}
    rest = {name: value + ("norm" in name) for name, value in weights.items() if name not in biases}
    found = renamed({name: value.astype(np.float32) for name, value in rest.items()}, NAMES)
    return found | {f"blk.{name.split('.')[2]}.exp_probs_b.bias": value for name, value in biases.items()} | _divisors(config)


def _divisors(config: Config) -> Arrays:
    """Of the pairs of layers that see everything, and ones behind them, as llama.cpp's converter writes them."""
    rope, width = config["rope_scaling"], config["head_dim"]
    if not rope:
        return {}
    rotated = int(width * config["partial_rotary_factors"][0])
    turns = (
        rope["original_max_position_embeddings"] * config["rope_theta"][0] ** (-np.arange(0, rotated, 2) / rotated) / (2 * np.pi)
    )
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    t = np.clip((turns - low) / (high - low), 0, 1)
    divisors = np.ones(width // 2)
    divisors[: rotated // 2] = 1 / ((1 - t) / rope["factor"] + t)
    return {"rope_freqs.weight": divisors.astype(np.float32)}


def stand_in(config: Config) -> Config:
    """Transformers has the language model within the multimodal one alone."""
    vision = {"width": 32, "layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    inner = {name: value for name, value in config.items() if name not in ("model_type", "architectures")}
    return {"model_type": "step3p7", "architectures": config["architectures"], "text_config": inner, "vision_config": vision}


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Norms of which one is added; a bias of the router that decides some choices."""
    from tests.checkpoints import draw as usual

    if "norm" in name:
        return usual(name, shape, gemma=True)
    return usual(name.replace("router_bias", "bias"), shape, gemma=False) if name.endswith("router_bias") else None


FAMILY = Family(
    types={"step3p5": ("step35", "Step3p7ForConditionalGeneration")},
    cases={"step35": _STEP, "step35-plain": _PLAIN},
    shapes=shapes,
    metadata=metadata,
    tensors=tensors,
    stand_in=stand_in,
    draw=draw,
)
