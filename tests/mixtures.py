"""Tiny mixtures of experts: their configs, their weights under Hugging Face names, and what a GGUF file makes of both."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 4.0, "beta_slow": 1.0}
_MIXTRAL = {"model_type": "mixtral", "num_local_experts": 6, "num_experts_per_tok": 2, "intermediate_size": 48}
_QWEN3 = {"model_type": "qwen3_moe", "head_dim": 32, "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32,
          "norm_topk_prob": True, "rms_norm_eps": 1e-6}  # fmt: skip
_OLMOE = {"model_type": "olmoe", "num_experts": 8, "num_experts_per_tok": 3, "intermediate_size": 32, "num_key_value_heads": 4}
_LATENT = {"kv_lora_rank": 32, "q_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 24,
           "num_key_value_heads": 4, "rms_norm_eps": 1e-6, "moe_intermediate_size": 32, "num_hidden_layers": 3,
           "first_k_dense_replace": 1, "n_routed_experts": 8, "num_experts_per_tok": 3, "n_shared_experts": 1}  # fmt: skip
_V1 = {"model_type": "deepseek", "num_key_value_heads": 4, "rms_norm_eps": 1e-6, "moe_intermediate_size": 32,
       "num_hidden_layers": 3, "first_k_dense_replace": 1, "moe_layer_freq": 1, "n_routed_experts": 8, "num_experts_per_tok": 3,
       "n_shared_experts": 2, "norm_topk_prob": False, "scoring_func": "softmax", "aux_loss_alpha": 0.001,
       "seq_aux": True}  # fmt: skip
_V2 = _LATENT | {"model_type": "deepseek_v2", "topk_method": "greedy", "n_group": 1, "topk_group": 1, "norm_topk_prob": False,
                 "routed_scaling_factor": 1.0, "scoring_func": "softmax",
                 "rope_scaling": _YARN | {"mscale": 0.707, "mscale_all_dim": 0.707}}  # fmt: skip
_V3 = _LATENT | {"model_type": "deepseek_v3", "n_group": 4, "topk_group": 2, "norm_topk_prob": True, "routed_scaling_factor": 2.5,
                 "topk_method": "noaux_tc", "scoring_func": "sigmoid", "num_nextn_predict_layers": 0,
                 "rope_scaling": _YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}}  # fmt: skip
_GLM4_LITE = _LATENT | {"model_type": "glm4_moe_lite", "n_group": 1, "topk_group": 1, "norm_topk_prob": True,
                        "routed_scaling_factor": 1.8, "topk_method": "noaux_tc", "num_nextn_predict_layers": 0,
                        "rms_norm_eps": 1e-5, "rope_theta": 1000000.0, "partial_rotary_factor": 1.0,
                        "mlp_layer_types": ["dense", "sparse", "sparse"],
                        "q_lora_rank": 24, "qk_nope_head_dim": 24, "v_head_dim": 32}  # fmt: skip
_GLM4 = {"model_type": "glm4_moe", "head_dim": 32, "partial_rotary_factor": 0.5, "attention_bias": True, "use_qk_norm": True,
         "moe_intermediate_size": 32, "num_hidden_layers": 3, "first_k_dense_replace": 1, "n_routed_experts": 8,
         "num_experts_per_tok": 3, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "norm_topk_prob": True,
         "routed_scaling_factor": 2.5, "num_nextn_predict_layers": 0}  # fmt: skip
_GPT_OSS = {"model_type": "gpt_oss", "head_dim": 16, "num_local_experts": 6, "num_experts_per_tok": 2, "intermediate_size": 32,
            "num_hidden_layers": 4, "sliding_window": 6, "attention_bias": True, "rope_theta": 150000.0, "swiglu_limit": 7.0,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "rope_scaling": _YARN | {"truncate": False, "beta_fast": 5.0}}  # fmt: skip
_LLAMA4 = {"model_type": "llama4_text", "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size": 32,
           "intermediate_size_mlp": 96, "num_hidden_layers": 4, "interleave_moe_layer_step": 1, "use_qk_norm": True,
           "no_rope_layers": [1, 1, 1, 0], "attention_chunk_size": 8, "attn_temperature_tuning": True, "floor_scale": 8,
           "attn_scale": 0.1, "rope_theta": 500000.0}  # fmt: skip
_MISTRAL4 = _LATENT | {"model_type": "mistral4", "first_k_dense_replace": 0, "n_group": 1, "topk_group": 1, "norm_topk_prob": True,
                       "routed_scaling_factor": 1.0, "num_hidden_layers": 2, "rope_parameters": _YARN | {
                           "rope_theta": 10000.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}}  # fmt: skip

CASES: dict[str, dict[str, Any]] = {
    "mixtral": _MIXTRAL,
    "qwen3moe": _QWEN3,
    "qwen3moe-sparse": _QWEN3
    | {"norm_topk_prob": False, "decoder_sparse_step": 2, "num_experts_per_tok": 2, "num_hidden_layers": 4, "mlp_only_layers": [3]},
    "olmoe": _OLMOE,
    "olmoe-renormalised": _OLMOE | {"norm_topk_prob": True},
    "deepseek": _V1,
    "deepseek-renormalised": _V1 | {"norm_topk_prob": True, "num_key_value_heads": 2, "first_k_dense_replace": 0},
    "deepseek2-lite": _V2 | {"q_lora_rank": None, "n_shared_experts": 2},
    "deepseek2": _V2 | {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2, "routed_scaling_factor": 1.5},
    "deepseek3": _V3,
    "deepseek3-one-group": _V3
    | {"n_group": 1, "topk_group": 1, "rope_scaling": None, "n_shared_experts": 2, "norm_topk_prob": False, "q_lora_rank": None},
    "deepseek3-halves": _V3 | {"rope_interleave": False, "attention_bias": True},
    "mistral4": _MISTRAL4,
    "glm4moe": _GLM4,
    "glm4moe-air": _GLM4 | {"use_qk_norm": False, "attention_bias": False, "routed_scaling_factor": 1.0},
    "glm4moe-lite": _GLM4_LITE,
    "gpt-oss": _GPT_OSS,
    "llama4": _LLAMA4,
    "llama4-128": _LLAMA4
    | {"num_local_experts": 128, "intermediate_size": 8, "interleave_moe_layer_step": 2, "use_qk_norm": False},
}
ONLY_HUGGINGFACE = ("qwen3moe-sparse", "deepseek3-halves", "deepseek-renormalised")  # what a GGUF file cannot say
ARCHITECTURES = {"mixtral": "llama", "qwen3_moe": "qwen3moe", "deepseek_v2": "deepseek2", "deepseek_v3": "deepseek2",
                 "glm4_moe": "glm4moe", "glm4_moe_lite": "deepseek2", "gpt_oss": "gpt-oss", "llama4_text": "llama4"}  # fmt: skip
CLASSES = {"mixtral": "Mixtral", "qwen3_moe": "Qwen3Moe", "olmoe": "Olmoe", "deepseek": "Deepseek", "deepseek_v2": "DeepseekV2",
           "deepseek_v3": "DeepseekV3",
           "glm4_moe": "Glm4Moe", "glm4_moe_lite": "Glm4MoeLite", "gpt_oss": "GptOss", "llama4_text": "Llama4",
           "mistral4": "Mistral4"}  # fmt: skip


def experts_of(config: dict[str, Any]) -> int:
    return next(config[name] for name in ("num_experts", "num_local_experts", "n_routed_experts") if name in config)


def is_mixture(config: dict[str, Any], layer: int) -> bool:
    if layer < config.get("first_k_dense_replace", 0) or layer in config.get("mlp_only_layers", ()):
        return False
    return (layer + 1) % config.get("decoder_sparse_step", config.get("interleave_moe_layer_step", 1)) == 0


def shapes_of(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Hugging Face names and shapes of all weights."""
    d, vocab = config["hidden_size"], config["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, d), "model.norm.weight": (d,)}
    for layer in range(config["num_hidden_layers"]):
        block = {"input_layernorm.weight": (d,), "post_attention_layernorm.weight": (d,)}
        block |= _latent_shapes(config) if "kv_lora_rank" in config else _attention_shapes(config)
        block |= _mixture_shapes(config) if is_mixture(config, layer) else _dense_shapes(config)
        shapes |= {f"model.layers.{layer}.{part}": shape for part, shape in block.items()}
    return shapes | {"lm_head.weight": (vocab, d)}


def _attention_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    d, h, k, kind = (config[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads", "model_type"))
    c = config.get("head_dim") or d // h
    shapes = {f"self_attn.{part}_proj.weight": (heads * c, d) for part, heads in (("q", h), ("k", k), ("v", k))}
    shapes["self_attn.o_proj.weight"] = (d, h * c)
    if config.get("attention_bias"):
        shapes |= {name.replace("weight", "bias"): shape[:1] for name, shape in shapes.items() if "o_proj" not in name}
    if kind == "gpt_oss":
        shapes |= {"self_attn.o_proj.bias": (d,), "self_attn.sinks": (h,)}
    if kind == "qwen3_moe" or (kind == "glm4_moe" and config["use_qk_norm"]):
        shapes |= {"self_attn.q_norm.weight": (c,), "self_attn.k_norm.weight": (c,)}
    if kind == "olmoe":
        shapes |= {"self_attn.q_norm.weight": (h * c,), "self_attn.k_norm.weight": (k * c,)}
    return shapes


def _latent_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    d, h, rank, q_rank = (config[key] for key in ("hidden_size", "num_attention_heads", "kv_lora_rank", "q_lora_rank"))
    n, p, v = (config[key] for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    shapes = {
        "kv_a_proj_with_mqa": (rank + p, d),
        "kv_a_layernorm": (rank,),
        "kv_b_proj": (h * (n + v), rank),
        "o_proj": (d, h * v),
    }
    if q_rank:
        shapes |= {"q_a_proj": (q_rank, d), "q_a_layernorm": (q_rank,), "q_b_proj": (h * (n + p), q_rank)}
    else:
        shapes["q_proj"] = (h * (n + p), d)
    named = {f"self_attn.{name}.weight": shape for name, shape in shapes.items()}
    if config.get("attention_bias"):
        named |= {f"self_attn.{name}.bias": shapes[name][:1] for name in ("q_a_proj", "kv_a_proj_with_mqa", "o_proj")}
    return named


def _feed_forward_shapes(prefix: str, d: int, f: int, names: str = "gate_proj up_proj down_proj") -> dict[str, tuple[int, ...]]:
    return {f"{prefix}{name}.weight": shape for name, shape in zip(names.split(), ((f, d), (f, d), (d, f)), strict=True)}


def _dense_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    llama4 = config["model_type"] == "llama4_text"
    f = config["intermediate_size_mlp" if llama4 else "intermediate_size"]
    return _feed_forward_shapes("feed_forward." if llama4 else "mlp.", config["hidden_size"], f)


def _mixture_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    d, e, kind = config["hidden_size"], experts_of(config), config["model_type"]
    f = config.get("moe_intermediate_size", config["intermediate_size"])
    if kind == "mixtral":
        shapes: dict[str, tuple[int, ...]] = {"block_sparse_moe.gate.weight": (e, d)}
        for expert in range(e):
            shapes |= _feed_forward_shapes(f"block_sparse_moe.experts.{expert}.", d, f, "w1 w3 w2")
        return shapes
    if kind in ("gpt_oss", "llama4_text"):
        prefix = "mlp." if kind == "gpt_oss" else "feed_forward."
        shapes = {
            f"{prefix}router.weight": (e, d),
            f"{prefix}experts.gate_up_proj": (e, d, 2 * f),
            f"{prefix}experts.down_proj": (e, f, d),
        }
        if kind == "llama4_text":
            return shapes | _feed_forward_shapes("feed_forward.shared_expert.", d, f)
        return shapes | {"mlp.router.bias": (e,), "mlp.experts.gate_up_proj_bias": (e, 2 * f), "mlp.experts.down_proj_bias": (e, d)}
    shapes = {"mlp.gate.weight": (e, d)}
    if kind in ("deepseek_v3", "kimi_k2", "glm4_moe", "glm4_moe_lite"):
        shapes["mlp.gate.e_score_correction_bias"] = (e,)
    if kind == "mistral4":
        shapes |= {"mlp.experts.gate_up_proj": (e, 2 * f, d), "mlp.experts.down_proj": (e, d, f)}
    else:
        for expert in range(e):
            shapes |= _feed_forward_shapes(f"mlp.experts.{expert}.", d, f)
    shared = config.get("n_shared_experts")
    return shapes | (_feed_forward_shapes("mlp.shared_experts.", d, f * shared) if shared else {})


PARTS = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "self_attn.sinks": "attn_sinks", "self_attn.q_a_proj": "attn_q_a", "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b", "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa", "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.kv_b_proj": "attn_kv_b", "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down", "w1": "ffn_gate",
    "w3": "ffn_up", "w2": "ffn_down", "gate": "ffn_gate_inp", "router": "ffn_gate_inp",
}  # fmt: skip
_FEED_FORWARD = re.compile(r"^(?:mlp|block_sparse_moe|feed_forward)\.(?:(experts)\.(\d+)\.|(shared_experts?)\.)?(\w+)$")


def tensors(config: dict[str, Any], weights: dict[str, np.ndarray], naive: bool) -> dict[str, np.ndarray]:
    """Weights under GGUF names: experts stacked, keys and values of latent attention apart unless `naive`."""
    found = {"token_embd.weight": weights["model.embed_tokens.weight"], "output_norm.weight": weights["model.norm.weight"],
             "output.weight": weights["lm_head.weight"]}  # fmt: skip
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        block = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        found |= {f"blk.{layer}.{name}": np.ascontiguousarray(v) for name, v in _block_tensors(config, block, naive).items()}
    return found


def _block_tensors(config: dict[str, Any], block: dict[str, np.ndarray], naive: bool) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    stacks: dict[str, list[np.ndarray]] = {}
    for name, value in block.items():
        stem, _, kind = name.rpartition(".")
        match = _FEED_FORWARD.match(stem)
        if name == "post_attention_layernorm.weight":
            late = config["model_type"] in ("gpt_oss", "glm4_moe")
            found["post_attention_norm.weight" if late else "ffn_norm.weight"] = value
        elif name == "mlp.gate.e_score_correction_bias":
            found["exp_probs_b.bias"] = value
        elif name == "self_attn.sinks":
            found["attn_sinks.weight"] = value
        elif ".experts.gate_up_proj" in name or ".experts.down_proj" in name:
            found |= _stacked(config, name, value)
        elif match and match.group(1):
            stacks.setdefault(PARTS[match.group(4)], []).append(value)
        elif match:
            found[f"{PARTS[match.group(4)]}{'_shexp' if match.group(3) else ''}.{kind}"] = value
        elif stem == "self_attn.kv_b_proj" and not naive:
            n, rank = config["qk_nope_head_dim"], config["kv_lora_rank"]
            heads = value.reshape(config["num_attention_heads"], -1, rank)
            found |= {"attn_k_b.weight": heads[:, :n].swapaxes(1, 2), "attn_v_b.weight": heads[:, n:]}
        else:
            found[f"{PARTS[stem]}.{kind}"] = _permuted(config, stem, value)
    return found | {f"{part}_exps.weight": np.stack(values) for part, values in stacks.items()}


def _permuted(config: dict[str, Any], stem: str, value: np.ndarray) -> np.ndarray:
    if config["model_type"] not in ("mixtral", "deepseek") or stem not in ("self_attn.q_proj", "self_attn.k_proj"):
        return value
    heads = config["num_attention_heads" if "q_proj" in stem else "num_key_value_heads"]
    return value.reshape(heads, 2, -1, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)


def _stacked(config: dict[str, Any], name: str, value: np.ndarray) -> dict[str, np.ndarray]:
    """Experts that Hugging Face stacks: (E, out, in) of mistral4, (E, in, out) of gpt_oss (alternating rows) and llama4."""
    kind = "bias" if name.endswith("_bias") else "weight"
    if kind == "weight" and config["model_type"] != "mistral4":
        value = value.swapaxes(1, 2)
    if "down_proj" in name:
        return {f"ffn_down_exps.{kind}": value}
    half = value.shape[1] // 2
    gate, up = (value[:, ::2], value[:, 1::2]) if config["model_type"] == "gpt_oss" else (value[:, :half], value[:, half:])
    return {f"ffn_gate_exps.{kind}": gate, f"ffn_up_exps.{kind}": up}


_SAME = {"expert_shared_count": "n_shared_experts", "leading_dense_block_count": "first_k_dense_replace",
         "expert_weights_scale": "routed_scaling_factor", "interleave_moe_layer_step": "interleave_moe_layer_step"}  # fmt: skip


def metadata(config: dict[str, Any], naive: bool) -> dict[str, Any]:
    """The keys that a GGUF file of a mixture has beyond those of a dense model."""
    kind = config["model_type"]
    keys: dict[str, Any] = {"expert_count": experts_of(config), "expert_used_count": config["num_experts_per_tok"]}
    if "moe_intermediate_size" in config or kind in ("gpt_oss", "llama4_text"):
        keys["expert_feed_forward_length"] = config.get("moe_intermediate_size", config["intermediate_size"])
    for ours, theirs in _SAME.items():
        if theirs in config:
            keys[ours] = config[theirs]
    if "norm_topk_prob" in config and kind not in ("qwen3_moe", "deepseek"):
        keys["expert_weights_norm"] = config["norm_topk_prob"]
    if config.get("n_group", 1) > 1:
        keys |= {"expert_group_count": config["n_group"], "expert_group_used_count": config["topk_group"]}
    if kind in ("deepseek_v3", "glm4_moe", "glm4_moe_lite"):
        keys["expert_gating_func"] = 2
    if kind == "llama4_text":
        keys |= {"feed_forward_length": config["intermediate_size_mlp"], "attention.sliding_window": config["attention_chunk_size"],
                 "attention.temperature_length": config["floor_scale"]}  # fmt: skip
    return keys | (_latent_keys(config, naive) if "kv_lora_rank" in config else {})


def _latent_keys(config: dict[str, Any], naive: bool) -> dict[str, Any]:
    rank, n, p, v = (config[key] for key in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    keys: dict[str, Any] = {"attention.kv_lora_rank": rank, "rope.dimension_count": p}
    if config["q_lora_rank"]:
        keys["attention.q_lora_rank"] = config["q_lora_rank"]
    yarn = config.get("rope_scaling") or config.get("rope_parameters")
    if yarn:
        keys |= {"rope.scaling.yarn_log_multiplier": 0.1 * yarn["mscale_all_dim"]}
    if naive:
        return keys | {"attention.key_length": n + p, "attention.value_length": v}
    return keys | {"attention.head_count_kv": 1, "attention.key_length": rank + p, "attention.value_length": rank,
                   "attention.key_length_mla": n + p, "attention.value_length_mla": v}  # fmt: skip
