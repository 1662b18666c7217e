"""LayerNorm with a bias: StarCoder2, StableLM, Phi 2, Phi-3.5-MoE."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.families.family import ATTENTION_NAMES, Arrays, Config, Family, attention_shapes, feed_forward_shapes, of_layers, renamed

_STARCODER2 = {"model_type": "starcoder2", "norm_epsilon": 1e-3, "hidden_act": "gelu_pytorch_tanh", "use_bias": True,
               "tie_word_embeddings": True, "sliding_window": None}  # fmt: skip
_STABLELM = {"model_type": "stablelm", "layer_norm_eps": 1e-3, "partial_rotary_factor": 0.25, "head_dim": 16, "use_qkv_bias": True,
             "qk_layernorm": False, "use_parallel_residual": False}  # fmt: skip
_PHI = {"model_type": "phi", "layer_norm_eps": 1e-3, "partial_rotary_factor": 0.5, "hidden_act": "gelu_new", "head_dim": 16,
        "num_key_value_heads": 4, "intermediate_size": 256}  # fmt: skip
_PHIMOE = {"model_type": "phimoe", "num_local_experts": 6, "num_experts_per_tok": 2, "intermediate_size": 32, "lm_head_bias": True,
           "attention_bias": True, "router_jitter_noise": 0.01, "input_jitter_noise": 0.01, "sliding_window": None}  # fmt: skip
NAMES = ATTENTION_NAMES | {
    "final_layernorm": "output_norm", "self_attn.dense": "attn_output", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down",
    "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down", "block_sparse_moe.gate": "ffn_gate_inp",
}  # fmt: skip
EXPERTS = {"w1": "ffn_gate_exps", "w3": "ffn_up_exps", "w2": "ffn_down_exps"}


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    d, kind, last = config["hidden_size"], config["model_type"], "norm"
    norms = ["input_layernorm", "post_attention_layernorm"]
    if kind == "phi":
        last, norms = "final_layernorm", norms[:1]
        block = attention_shapes(config, "dense") | feed_forward_shapes(config, "fc1", "fc2")
    elif kind == "starcoder2":
        block = attention_shapes(config) | feed_forward_shapes(config, "c_fc", "c_proj")
    else:
        block = attention_shapes(config)
    if kind in ("phi", "starcoder2"):
        block |= {name.replace("weight", "bias"): shape[:1] for name, shape in block.items()}
    elif config.get("use_qkv_bias", kind == "phimoe"):
        parts = ("q_proj", "k_proj", "v_proj", "o_proj")[: 4 if kind == "phimoe" else 3]
        block |= {f"self_attn.{part}.bias": block[f"self_attn.{part}.weight"][:1] for part in parts}
    if kind == "stablelm":
        block |= feed_forward_shapes(config, "gate_proj", "up_proj", "down_proj")
        norms = norms[: 1 if config["use_parallel_residual"] else 2]
        heads = {"q": config["num_attention_heads"], "k": config["num_key_value_heads"]} if config["qk_layernorm"] else {}
        for part, count in heads.items():
            block |= {f"self_attn.{part}_layernorm.norms.{head}.weight": (config["head_dim"],) for head in range(count)}
    if kind == "phimoe":
        block |= _experts(config)
    block |= {f"{norm}.{part}": (d,) for norm in norms for part in ("weight", "bias")}
    found = of_layers(config, block, last) | {f"model.{last}.bias": (d,)}
    return found | {"lm_head.bias": (config["vocab_size"],)} if config.get("lm_head_bias", kind == "phi") else found


def _experts(config: Config) -> dict[str, tuple[int, ...]]:
    d, f, experts = (config[key] for key in ("hidden_size", "intermediate_size", "num_local_experts"))
    found = {"block_sparse_moe.gate.weight": (experts, d)}
    for expert in range(experts):
        found |= {f"block_sparse_moe.experts.{expert}.{part}.weight": (d, f) if part == "w2" else (f, d) for part in EXPERTS}
    return found


def metadata(config: Config) -> dict[str, Any]:
    if config["model_type"] == "phimoe":
        return {"expert_count": config["num_local_experts"], "expert_used_count": config["num_experts_per_tok"]}
    found = {"attention.layer_norm_epsilon": config.get("layer_norm_eps", config.get("norm_epsilon"))}
    if "use_parallel_residual" in config:
        found["use_parallel_residual"] = True  # as for a config that does not say it
    return found


def tensors(config: Config, weights: Arrays) -> Arrays:
    plain, stacks = {}, {}
    for name, value in weights.items():
        stem, _, part = name.removesuffix(".weight").rpartition(".")
        layer = name.removeprefix("model.layers.").partition(".")[0]
        if ".experts." in name:
            stacks.setdefault(f"blk.{layer}.{EXPERTS[part]}.weight", []).append(value)
        elif ".norms." in name:
            kind = "q" if ".q_layernorm" in stem else "k"
            stacks.setdefault(f"blk.{layer}.attn_{kind}_norm.weight", []).append(value)
        else:
            plain[name] = value
    return renamed(plain, NAMES) | {name: np.stack(values) for name, values in stacks.items()}


FAMILY = Family(
    types={
        "starcoder2": ("starcoder2", "Starcoder2ForCausalLM"),
        "stablelm": ("stablelm", "StableLmForCausalLM"),
        "phi": ("phi2", "PhiForCausalLM"),
        "phimoe": ("phimoe", "PhimoeForCausalLM"),
    },
    cases={
        "starcoder2": _STARCODER2,
        "stablelm": _STABLELM,
        "stablelm-12b": _STABLELM | {"use_qkv_bias": False, "qk_layernorm": True, "use_parallel_residual": True},
        "phi": _PHI,
        "phimoe": _PHIMOE,
        "phimoe-jitter": _PHIMOE | {"router_jitter_noise": 0.2, "lm_head_bias": False},
    },
    shapes=shapes,
    metadata=metadata,
    tensors=tensors,
    only_huggingface=("phimoe-jitter",),  # a file has no jitter of the router
)
