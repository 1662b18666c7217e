"""Mamba-2 and its hybrids: Granite 4, Nemotron-H, and layers of nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.families.family import Arrays, Config, Family, neighbours

_FACTORS = {"embedding_multiplier": 6.0, "residual_multiplier": 0.5, "attention_multiplier": 0.4, "logits_scaling": 0.3}
_GRANITE = _FACTORS | {
    "model_type": "granitemoehybrid", "num_hidden_layers": 4, "layer_types": ["mamba", "mamba", "attention", "mamba"],
    "mamba_n_heads": 8, "mamba_n_groups": 1, "mamba_d_state": 16, "mamba_d_head": 16, "mamba_d_conv": 4, "mamba_expand": 2,
    "mamba_chunk_size": 8, "mamba_conv_bias": True, "mamba_proj_bias": False, "shared_intermediate_size": 96,
    "num_local_experts": 0, "num_experts_per_tok": 0, "position_embedding_type": "nope", "attention_bias": False,
    "time_step_limit": [0.0, float("inf")],
}  # fmt: skip
_GRANITE_MIXTURE = _GRANITE | {"num_local_experts": 6, "num_experts_per_tok": 3, "intermediate_size": 32, "mamba_n_groups": 2,
                               "tie_word_embeddings": True, "shared_intermediate_size": 48}  # fmt: skip
_NEMOTRON = {
    "model_type": "nemotron_h", "hybrid_override_pattern": "M-M*-M", "num_hidden_layers": 6, "head_dim": 32,
    "mamba_num_heads": 16, "mamba_head_dim": 12, "n_groups": 2, "ssm_state_size": 16, "conv_kernel": 4, "chunk_size": 8,
    "use_conv_bias": True, "use_bias": False, "mlp_bias": False, "mlp_hidden_act": "relu2", "mamba_hidden_act": "silu",
    "layer_norm_epsilon": 1e-5, "time_step_min": 0.0, "expand": 2, "intermediate_size": 96,
}  # fmt: skip
_NEMOTRON_MIXTURE = _NEMOTRON | {
    "hybrid_override_pattern": "ME*EM", "num_hidden_layers": 5, "n_routed_experts": 8, "num_experts_per_tok": 3,
    "n_shared_experts": 1, "moe_intermediate_size": 32, "moe_shared_expert_intermediate_size": 64, "norm_topk_prob": True,
    "routed_scaling_factor": 2.5, "n_group": 1, "topk_group": 1,
}  # fmt: skip
_MAMBA = {
    "model_type": "mamba2", "num_hidden_layers": 3, "num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 2, "expand": 2,
    "conv_kernel": 4, "chunk_size": 8, "use_bias": False, "use_conv_bias": True, "layer_norm_epsilon": 1e-5,
    "time_step_limit": [0.0, float("inf")], "intermediate_size": 128, "residual_in_fp32": True,
}  # fmt: skip
LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
NAMES = {
    "embed_tokens": "token_embd", "embeddings": "token_embd", "norm": "output_norm", "norm_f": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "in_proj": "ssm_in", "conv1d": "ssm_conv1d",
    "out_proj": "ssm_out", "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
    "up_proj": "ffn_up", "down_proj": "ffn_down", "gate": "ffn_gate_inp", "router.layer": "ffn_gate_inp",
    "output_linear": "ffn_down_exps", "shared_experts.up_proj": "ffn_up_shexp", "shared_experts.down_proj": "ffn_down_shexp",
    "fc1_latent_proj": "ffn_latent_down", "fc2_latent_proj": "ffn_latent_up",
}  # fmt: skip


def sizes(config: Config) -> tuple[int, int, int, int, int]:
    """Heads, their width, states, groups and positions of the convolution."""
    names = {
        "granitemoehybrid": ("mamba_n_heads", "mamba_d_head", "mamba_d_state", "mamba_n_groups", "mamba_d_conv"),
        "nemotron_h": ("mamba_num_heads", "mamba_head_dim", "ssm_state_size", "n_groups", "conv_kernel"),
        "mamba2": ("num_heads", "head_dim", "state_size", "n_groups", "conv_kernel"),
    }
    heads, width, states, groups, kernel = (config[name] for name in names[config["model_type"]])
    return heads, config["mamba_expand"] * config["hidden_size"] // heads if width == "auto" else width, states, groups, kernel


def kinds(config: Config) -> list[str]:
    if config["model_type"] == "nemotron_h":
        return [LETTERS[letter] for letter in config["hybrid_override_pattern"]]
    return list(config.get("layer_types") or ["mamba"] * config["num_hidden_layers"])


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    d, vocab, kind = config["hidden_size"], config["vocab_size"], config["model_type"]
    granite, base = kind == "granitemoehybrid", "model" if kind == "granitemoehybrid" else "backbone"
    embedding, norm = ("embed_tokens", "norm") if granite else ("embeddings", "norm_f")
    found: dict[str, tuple[int, ...]] = {f"{base}.{embedding}.weight": (vocab, d), f"{base}.{norm}.weight": (d,)}
    for layer, part in enumerate(kinds(config)):
        block = {"input_layernorm.weight": (d,), "post_attention_layernorm.weight": (d,)} if granite else {"norm.weight": (d,)}
        mixer = {"mamba": _mamba, "attention": _attention, "mlp": _mlp, "moe": _experts}[part](config)
        prefix = {"mamba": "mamba.", "attention": "self_attn."}[part] if granite else "mixer."
        block |= {prefix + name: shape for name, shape in mixer.items()}
        if granite:
            block |= _granite_forward(config)
        found |= {f"{base}.layers.{layer}.{name}": shape for name, shape in block.items()}
    return found if config["tie_word_embeddings"] else found | {"lm_head.weight": (vocab, d)}


def _mamba(config: Config) -> dict[str, tuple[int, ...]]:
    (heads, width, states, groups, kernel), d = sizes(config), config["hidden_size"]
    inner, mixed = heads * width, heads * width + 2 * groups * states
    found: dict[str, tuple[int, ...]] = {"in_proj.weight": (inner + mixed + heads, d), "conv1d.weight": (mixed, 1, kernel),
        "dt_bias": (heads,), "A_log": (heads,), "D": (heads,), "norm.weight": (inner,), "out_proj.weight": (d, inner)}  # fmt: skip
    if config.get("mamba_conv_bias", config.get("use_conv_bias")):
        found["conv1d.bias"] = (mixed,)
    if config.get("mamba_proj_bias", config.get("use_bias")):
        found |= {"in_proj.bias": (inner + mixed + heads,), "out_proj.bias": (d,)}
    return found


def _attention(config: Config) -> dict[str, tuple[int, ...]]:
    d, h, k = (config[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    c = config.get("head_dim") or d // h
    found = {f"{name}_proj.weight": (heads * c, d) for name, heads in (("q", h), ("k", k), ("v", k))}
    return found | {"o_proj.weight": (d, h * c)}


def _mlp(config: Config) -> dict[str, tuple[int, ...]]:
    d, f = config["hidden_size"], config["intermediate_size"]
    found: dict[str, tuple[int, ...]] = {"up_proj.weight": (f, d), "down_proj.weight": (d, f)}
    return found | ({"up_proj.bias": (f,), "down_proj.bias": (d,)} if config["mlp_bias"] else {})


def _experts(config: Config) -> dict[str, tuple[int, ...]]:
    d, e, f = config["hidden_size"], config["n_routed_experts"], config["moe_intermediate_size"]
    latent, shared = config.get("moe_latent_size"), config["moe_shared_expert_intermediate_size"]
    found: dict[str, tuple[int, ...]] = {"gate.weight": (e, d), "gate.e_score_correction_bias": (e,)}
    for expert in range(e):
        found |= {f"experts.{expert}.up_proj.weight": (f, latent or d), f"experts.{expert}.down_proj.weight": (latent or d, f)}
    found |= {"shared_experts.up_proj.weight": (shared, d), "shared_experts.down_proj.weight": (d, shared)}
    return found | ({"fc1_latent_proj.weight": (latent, d), "fc2_latent_proj.weight": (d, latent)} if latent else {})


def _granite_forward(config: Config) -> dict[str, tuple[int, ...]]:
    d, shared = config["hidden_size"], config["shared_intermediate_size"]
    found = {"shared_mlp.input_linear.weight": (2 * shared, d), "shared_mlp.output_linear.weight": (d, shared)}
    if e := config["num_local_experts"]:
        f = config["intermediate_size"]
        found |= {"block_sparse_moe.router.layer.weight": (e, d), "block_sparse_moe.input_linear.weight": (e, 2 * f, d),
                  "block_sparse_moe.output_linear.weight": (e, d, f)}  # fmt: skip
    return found


def architecture(config: Config) -> str:
    """Of GGUF, which has another name for Nemotron with experts."""
    kind = FAMILY.types[config["model_type"]][0]
    return "nemotron_h_moe" if kind == "nemotron_h" and "n_routed_experts" in config else kind


def metadata(config: Config) -> dict[str, Any]:
    (heads, width, states, groups, kernel), listed = sizes(config), kinds(config)
    keys: dict[str, Any] = {"ssm.conv_kernel": kernel, "ssm.inner_size": heads * width, "ssm.state_size": states,
                            "ssm.time_step_rank": heads, "ssm.group_count": groups}  # fmt: skip
    if config["model_type"] == "mamba2":
        return keys | {"attention.head_count": 0, "attention.head_count_kv": 0, "feed_forward_length": 0}
    keys["attention.head_count_kv"] = [config["num_key_value_heads"] * (kind == "attention") for kind in listed]
    if config["model_type"] == "nemotron_h":
        return keys | _nemotron_metadata(config, listed)
    keys |= {"attention.scale": config["attention_multiplier"], "embedding_scale": config["embedding_multiplier"],
             "residual_scale": config["residual_multiplier"], "logit_scale": config["logits_scaling"],
             "rope.scaling.finetuned": config["position_embedding_type"] == "rope"}  # fmt: skip
    keys["expert_shared_feed_forward_length"] = config["shared_intermediate_size"]
    if config["num_local_experts"]:
        keys |= {"expert_count": config["num_local_experts"], "expert_used_count": config["num_experts_per_tok"]}
    return keys


def _nemotron_metadata(config: Config, listed: list[str]) -> dict[str, Any]:
    mixture = "n_routed_experts" in config
    width = config["moe_intermediate_size" if mixture else "intermediate_size"]
    keys = {"feed_forward_length": [width * (kind in ("mlp", "moe")) for kind in listed]}
    if mixture:
        keys |= {"expert_used_count": config["num_experts_per_tok"], "expert_feed_forward_length": width,
                 "expert_shared_feed_forward_length": config["moe_shared_expert_intermediate_size"],
                 "expert_count": config["n_routed_experts"], "expert_shared_count": config["n_shared_experts"],
                 "expert_weights_norm": config["norm_topk_prob"], "expert_weights_scale": config["routed_scaling_factor"],
                 "expert_group_count": config["n_group"],
                 "expert_group_used_count": config["topk_group"]}  # fmt: skip
        if "moe_latent_size" in config:
            keys["moe_latent_size"] = config["moe_latent_size"]
    return keys


def tensors(config: Config, weights: Arrays) -> Arrays:
    found: Arrays = {}
    experts: dict[str, list[np.ndarray]] = {}
    for name, value in weights.items():
        stem = name.removeprefix("model.").removeprefix("backbone.")
        if not stem.startswith("layers."):
            found[NAMES[stem.removesuffix(".weight")] + ".weight"] = value
            continue
        _, layer, part = stem.split(".", 2)
        place = f"blk.{layer}."
        for prefix in ("mamba.", "mixer.", "self_attn.", "block_sparse_moe."):
            part = part.removeprefix(prefix)
        if part.startswith("experts."):
            experts.setdefault(f"{place}ffn_{part.split('.')[2].removesuffix('_proj')}_exps.weight", []).append(value)
        else:
            found |= {place + ours: made for ours, made in _tensor(config, stem, part, value).items()}
    found |= {name: np.stack(members) for name, members in experts.items()}
    found = {name: np.ascontiguousarray(value) for name, value in found.items()}
    return neighbours(config, found) if config["model_type"] == "granitemoehybrid" else found


def _tensor(config: Config, stem: str, part: str, value: np.ndarray) -> Arrays:
    """The tensors that become of a weight, without the number of the layer."""
    if part in ("input_linear.weight", "shared_mlp.input_linear.weight", "shared_mlp.output_linear.weight"):
        kind = "exps" if not part.startswith("shared") else "shexp" if config["num_local_experts"] else ""
        names = [f"ffn_{half}{'_' if kind else ''}{kind}.weight" for half in ("gate", "up", "down")]
        if "output" in part:
            return {names[2]: value}
        return dict(zip(names, np.split(value, 2, axis=-2), strict=False))
    if part == "norm.weight":
        inner = stem.endswith(("mamba.norm.weight", "mixer.norm.weight"))
        return {"ssm_norm.weight": value.reshape(sizes(config)[3], -1)} if inner else {"attn_norm.weight": value}
    special = {"A_log": ("ssm_a", -np.exp(value).reshape(-1, 1)), "D": ("ssm_d", value.reshape(-1, 1)),
               "dt_bias": ("ssm_dt.bias", value), "gate.e_score_correction_bias": ("exp_probs_b.bias", value)}  # fmt: skip
    if part in special:
        return dict([special[part]])
    part, _, kind = part.rpartition(".")
    return {f"{NAMES[part]}.{kind}": value.squeeze(1) if part == "conv1d" and kind == "weight" else value}


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Decays of memories of some tokens and of hundreds."""
    if name.endswith("A_log"):
        return np.linspace(-4, 1, shape[0], dtype=np.float32)
    return np.linspace(-1.5, 1, shape[0], dtype=np.float32) if name.endswith(".D") else None


FAMILY = Family(
    types={
        "granitemoehybrid": ("granitehybrid", "GraniteMoeHybridForCausalLM"),
        "nemotron_h": ("nemotron_h", "NemotronHForCausalLM"),
        "mamba2": ("mamba2", "Mamba2ForCausalLM"),
    },
    cases={
        "granitehybrid": _GRANITE,
        "granitehybrid-moe": _GRANITE_MIXTURE,
        "granitehybrid-rope": _GRANITE
        | {
            "position_embedding_type": "rope",
            "mamba_conv_bias": False,
            "mamba_proj_bias": True,
            "mamba_d_head": "auto",
            "mamba_d_conv": 3,
            "layer_types": ["attention", "mamba"],
            "num_hidden_layers": 2,
            "mamba_chunk_size": 256,
        },
        "nemotron_h": _NEMOTRON,
        "nemotron_h-biases": _NEMOTRON
        | {
            "use_bias": True,
            "mlp_bias": True,
            "use_conv_bias": False,
            "n_groups": 1,
            "hybrid_override_pattern": "-*MM",
            "num_hidden_layers": 4,
            "chunk_size": 5,
        },
        "nemotron_h-moe": _NEMOTRON_MIXTURE,
        "nemotron_h-latent": _NEMOTRON_MIXTURE | {"moe_latent_size": 32, "n_group": 4, "topk_group": 2, "norm_topk_prob": False},
        "mamba2": _MAMBA,
        "mamba2-tied": _MAMBA | {"tie_word_embeddings": True, "n_groups": 1, "state_size": 24, "conv_kernel": 2},
    },
    shapes=shapes,
    metadata=metadata,
    tensors=tensors,
    draw=draw,
    architecture=architecture,
)
