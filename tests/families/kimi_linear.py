"""Kimi Linear: Kimi delta attention in most layers, latent attention without RoPE in the others, experts behind a dense layer."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from tests.families.family import Arrays, Config, Family, renamed

LINEAR = {"kda_layers": [1, 2, 4], "full_attn_layers": [3], "num_heads": 4, "head_dim": 16, "short_conv_kernel_size": 4}
_BASE = {
    "model_type": "kimi_linear", "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 24,
    "mla_use_nope": True, "kv_lora_rank": 32, "q_lora_rank": None, "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8, "v_head_dim": 24, "num_experts": 8, "num_experts_per_token": 3, "num_shared_experts": 1,
    "moe_intermediate_size": 32, "first_k_dense_replace": 1, "moe_layer_freq": 1, "moe_renormalize": True,
    "moe_router_activation_func": "sigmoid", "routed_scaling_factor": 2.446, "num_expert_group": 1, "topk_group": 1,
    "use_grouped_topk": True, "num_nextn_predict_layers": 0, "model_max_length": 256, "pad_token_id": 0, "rms_norm_eps": 1e-6,
}  # fmt: skip
NAMES = {
    "embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_conv1d": "ssm_conv1d_q", "self_attn.k_conv1d": "ssm_conv1d_k", "self_attn.v_conv1d": "ssm_conv1d_v",
    "self_attn.b_proj": "ssm_beta", "self_attn.f_a_proj": "ssm_f_a", "self_attn.f_b_proj": "ssm_f_b",
    "self_attn.g_a_proj": "ssm_g_a", "self_attn.g_b_proj": "ssm_g_b", "self_attn.o_norm": "ssm_norm",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa", "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.k_b": "attn_k_b", "self_attn.v_b": "attn_v_b", "block_sparse_moe.gate": "ffn_gate_inp",
    "block_sparse_moe.experts.w1": "ffn_gate_exps", "block_sparse_moe.experts.w2": "ffn_down_exps",
    "block_sparse_moe.experts.w3": "ffn_up_exps", "block_sparse_moe.shared_experts.gate_proj": "ffn_gate_shexp",
    "block_sparse_moe.shared_experts.up_proj": "ffn_up_shexp", "block_sparse_moe.shared_experts.down_proj": "ffn_down_shexp",
}  # fmt: skip
# of the config: as the makers name it, as transformers does
SIZES = {"num_heads": "linear_num_heads", "head_dim": "linear_head_dim", "short_conv_kernel_size": "linear_conv_kernel_dim"}


def sizes(config: Config) -> tuple[int, int, int]:
    """Heads of the delta layers, their width, and the positions of their convolutions."""
    inner = config.get("linear_attn_config")
    heads, width, kernel = (int(inner[theirs] if inner else config[ours]) for theirs, ours in SIZES.items())
    return heads, width, kernel


def is_delta(config: Config, layer: int) -> bool:
    kinds = config.get("layer_types")
    return bool(kinds[layer] == "linear_attention") if kinds else layer + 1 in config["linear_attn_config"]["kda_layers"]


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    d, vocab, f = (config[key] for key in ("hidden_size", "vocab_size", "intermediate_size"))
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, d), "model.norm.weight": (d,)}
    for layer in range(config["num_hidden_layers"]):
        block: dict[str, tuple[int, ...]] = {"input_layernorm.weight": (d,), "post_attention_layernorm.weight": (d,)}
        mixer = _delta_shapes(config) if is_delta(config, layer) else _latent_shapes(config)
        block |= {f"self_attn.{name}": shape for name, shape in mixer.items()}
        block |= _mixture(config) if layer >= config["first_k_dense_replace"] else _gated("mlp.", f, d)
        found |= {f"model.layers.{layer}.{part}": shape for part, shape in block.items()}
    return found | {"lm_head.weight": (vocab, d)}


def _delta_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    d, (heads, width, kernel) = config["hidden_size"], sizes(config)
    whole = heads * width
    found: dict[str, tuple[int, ...]] = {f"{part}_proj.weight": (whole, d) for part in ("q", "k", "v")}
    found |= {f"{part}_conv1d.weight": (whole, 1, kernel) for part in ("q", "k", "v")}
    for part in ("f", "g"):
        found |= {f"{part}_a_proj.weight": (width, d), f"{part}_b_proj.weight": (whole, width)}
    return found | {"b_proj.weight": (heads, d), "A_log": (1, 1, heads, 1), "dt_bias": (whole,), "o_norm.weight": (width,),
                    "o_proj.weight": (d, whole)}  # fmt: skip


def _latent_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    d, h, rank, q_rank = (config[key] for key in ("hidden_size", "num_attention_heads", "kv_lora_rank", "q_lora_rank"))
    n, p, v = (config[key] for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    found = {"kv_a_proj_with_mqa": (rank + p, d), "kv_a_layernorm": (rank,), "kv_b_proj": (h * (n + v), rank), "o_proj": (d, h * v)}
    if q_rank:
        found |= {"q_a_proj": (q_rank, d), "q_a_layernorm": (q_rank,), "q_b_proj": (h * (n + p), q_rank)}
    else:
        found["q_proj"] = (h * (n + p), d)
    return {f"{name}.weight": shape for name, shape in found.items()}


def _gated(prefix: str, f: int, d: int, names: str = "gate_proj up_proj down_proj") -> dict[str, tuple[int, ...]]:
    return {f"{prefix}{name}.weight": shape for name, shape in zip(names.split(), ((f, d), (f, d), (d, f)), strict=True)}


def _mixture(config: Config) -> dict[str, tuple[int, ...]]:
    d, e, f, shared = (config[key] for key in ("hidden_size", "num_experts", "moe_intermediate_size", "num_shared_experts"))
    prefix = "block_sparse_moe."
    found: dict[str, tuple[int, ...]] = {f"{prefix}gate.weight": (e, d), f"{prefix}gate.e_score_correction_bias": (e,)}
    for expert in range(e):
        found |= _gated(f"{prefix}experts.{expert}.", f, d, "w1 w3 w2")
    return found | _gated(f"{prefix}shared_experts.", f * shared, d)


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Rates of decay from slow to fast."""
    if not name.endswith("A_log"):
        return None
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
    return (2 * ((raw >> np.uint64(40)).astype(np.float64) / 2**23 - 1)).reshape(shape).astype(np.float32)


def metadata(config: Config) -> dict[str, Any]:
    rank, n, p, v = (config[key] for key in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    _, width, kernel = sizes(config)
    key_heads = [0 if is_delta(config, layer) else 1 for layer in range(config["num_hidden_layers"])]
    return {
        "attention.head_count_kv": key_heads, "attention.kv_lora_rank": rank, "rope.dimension_count": p,
        "attention.key_length": rank + p, "attention.key_length_mla": n + p, "attention.value_length_mla": v,
        "attention.value_length": v, "kda.head_dim": width, "ssm.conv_kernel": kernel,
        "expert_count": config["num_experts"], "expert_used_count": config["num_experts_per_token"], "expert_gating_func": 2,
        "expert_feed_forward_length": config["moe_intermediate_size"], "expert_shared_count": config["num_shared_experts"],
        "expert_weights_scale": config["routed_scaling_factor"], "leading_dense_block_count": config["first_k_dense_replace"],
    }  # fmt: skip


def tensors(config: Config, weights: Arrays) -> Arrays:
    """As llama.cpp's converter writes them: convolutions and rates with axes of one, keys and values of latent attention apart."""
    found: Arrays = {}
    experts: dict[str, list[np.ndarray]] = {}
    for name, value in weights.items():
        stem, _, last = name.rpartition(".")
        if ".experts." in name:
            before, _, after = stem.partition(".experts.")
            experts.setdefault(f"{before}.experts.{after.partition('.')[2]}.weight", []).append(value)
        elif stem.endswith("conv1d"):
            found[name] = value[None]
        elif stem.endswith("kv_b_proj"):
            n, heads = config["qk_nope_head_dim"], value.reshape(config["num_attention_heads"], -1, value.shape[-1])
            found[f"{stem.removesuffix('kv_b_proj')}k_b.weight"] = heads[:, :n].swapaxes(1, 2)
            found[f"{stem.removesuffix('kv_b_proj')}v_b.weight"] = heads[:, n:]
        elif not last.endswith(("A_log", "dt_bias", "correction_bias")):
            found[name] = value
    ready = renamed(found | {name: np.stack(stack) for name, stack in experts.items()}, NAMES)
    for name, value in weights.items():
        block = f"blk.{name.split('.')[2]}" if ".layers." in name else ""
        if name.endswith("A_log"):
            ready[f"{block}.ssm_a"] = -np.exp(value)
        elif name.endswith(("dt_bias", "correction_bias")):
            ready[f"{block}.{'ssm_dt' if name.endswith('dt_bias') else 'exp_probs_b'}.bias"] = value
    return ready


FAMILY = Family(
    types={"kimi_linear": ("kimi-linear", "KimiLinearForCausalLM")},
    cases={
        "kimi-linear": _BASE | {"linear_attn_config": LINEAR},
        # in the words of transformers; other heads than attention has, groups of experts, the latent of queries
        "kimi-linear-groups": _BASE
        | {"linear_num_heads": 3, "linear_head_dim": 24, "linear_conv_kernel_dim": 3}
        | {"layer_types": ["linear_attention", "full_attention", "linear_attention", "linear_attention"], "q_lora_rank": 24}
        | {"num_expert_group": 4, "topk_group": 2, "moe_renormalize": False, "num_shared_experts": 2, "rms_norm_eps": 1e-5},
    },
    shapes=shapes,
    metadata=metadata,
    tensors=tensors,
    draw=draw,
    only_huggingface=("kimi-linear-groups",),
)
