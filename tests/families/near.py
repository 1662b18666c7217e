"""Families that are Llama's layers with a few changes each: what differs stands in a row of `KINDS`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.families.family import Arrays, Config, Family

Shapes = dict[str, tuple[int, ...]]
_GATED = ("gate_proj", "up_proj", "down_proj")
_LATE_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")


@dataclass(frozen=True)
class Kind:
    gguf: str  # architecture
    name: str  # class of transformers, without ForCausalLM
    qk_norm: tuple[str, str] = ()  # type: ignore[assignment]
    whole_qk_norm: bool = False
    ffn_norm: str = "ffn_norm"  # of GGUF
    permuted: bool = False  # rows of q and k
    experts: str = "mlp.experts.*"
    parts: tuple[str, str, str] = _GATED  # gate, up and down of an expert
    attention: str = "self_attn"
    fused: str = ""  # q, k and v in one weight
    output: str = "o_proj"
    embedding: str = "embed_tokens"
    pre_norms: bool = True
    router: str = "mlp.gate"
    bias: str = ""  # that a router chooses by
    shared: str = ""
    keys: dict[str, str] = field(default_factory=dict)  # of GGUF: of config.json
    fixed: dict[str, Any] = field(default_factory=dict)  # keys of GGUF that are always so


_COUNTS = {"expert_count": "num_experts", "expert_used_count": "num_experts_per_tok"}
_WIDTH = {"expert_feed_forward_length": "moe_intermediate_size"}
_V3 = {"expert_count": "n_routed_experts", "expert_used_count": "num_experts_per_tok", "expert_weights_norm": "norm_topk_prob",
       "expert_weights_scale": "routed_scaling_factor", "leading_dense_block_count": "first_k_dense_replace",
       "expert_shared_count": "n_shared_experts"}  # fmt: skip
KINDS = {
    "ministral3": Kind("mistral3", "Ministral3", permuted=True),
    "qwen2_moe": Kind("qwen2moe", "Qwen2Moe", shared="mlp.shared_expert", keys=_COUNTS | _WIDTH
                      | {"expert_shared_feed_forward_length": "shared_expert_intermediate_size"}),
    "seed_oss": Kind("seed_oss", "SeedOss", ffn_norm="post_attention_norm"),
    "hunyuan_v1_dense": Kind("hunyuan-dense", "HunYuanDenseV1", ("query_layernorm", "key_layernorm")),
    "hunyuan_v1_moe": Kind("hunyuan-moe", "HunYuanMoEV1", ("query_layernorm", "key_layernorm"), router="mlp.gate.wg",
                           shared="mlp.shared_mlp", keys={"expert_count": "num_experts", "expert_used_count": "moe_topk",
                                                          "expert_shared_feed_forward_length": "intermediate_size"}),
    "ernie4_5": Kind("ernie4_5", "Ernie4_5"),
    "ernie4_5_moe": Kind("ernie4_5-moe", "Ernie4_5_Moe", bias="mlp.moe_statics.e_score_correction_bias",
                         shared="mlp.shared_experts", keys=_WIDTH | {
                             "expert_count": "moe_num_experts", "expert_used_count": "moe_k",
                             "leading_dense_block_count": "moe_layer_start_index",
                             "interleave_moe_layer_step": "moe_layer_interval"}),
    "minimax_m2": Kind("minimax-m2", "MiniMaxM2", ("q_norm", "k_norm"), True, experts="block_sparse_moe.experts.*",
                       parts=("w1", "w3", "w2"), router="block_sparse_moe.gate", bias="block_sparse_moe.e_score_correction_bias",
                       keys={"expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok",
                             "rope.dimension_count": "rotary_dim"}, fixed={"expert_gating_func": 2}),
    "dots1": Kind("dots1", "Dots1", ("q_norm", "k_norm"), bias="mlp.gate.e_score_correction_bias", shared="mlp.shared_experts",
                  keys=_V3 | _WIDTH, fixed={"expert_gating_func": 2}),
    "exaone4": Kind("exaone4", "Exaone4", ("q_norm", "k_norm"), pre_norms=False),
    "exaone_moe": Kind("exaone-moe", "ExaoneMoe", ("q_norm", "k_norm"), bias="mlp.gate.e_score_correction_bias",
                       shared="mlp.shared_experts", keys=_COUNTS | _WIDTH | {
                           "expert_weights_norm": "norm_topk_prob", "expert_weights_scale": "routed_scaling_factor",
                           "leading_dense_block_count": "first_k_dense_replace"}, fixed={"expert_gating_func": 2}),
    "bailing_moe": Kind("bailingmoe2", "BailingMoeV2", ("query_layernorm", "key_layernorm"), attention="attention",
                        fused="query_key_value", output="dense", embedding="word_embeddings", bias="mlp.gate.expert_bias",
                        shared="mlp.shared_experts", keys=_COUNTS | _WIDTH | {
                            "expert_weights_norm": "norm_topk_prob", "expert_weights_scale": "routed_scaling_factor",
                            "leading_dense_block_count": "first_k_dense_replace", "expert_group_count": "n_group",
                            "expert_group_used_count": "topk_group"}, fixed={"expert_gating_func": 2}),
}  # fmt: skip
_HUNYUAN = {"hidden_size": 256, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 128, "attention_bias": False,
            "tie_word_embeddings": True, "max_position_embeddings": 32768,  # llama.cpp's converter knows these sizes only
            "rope_scaling": {"type": "dynamic", "alpha": 1000.0, "factor": 1.0}}  # fmt: skip
_BASE: dict[str, Config] = {
    "ministral3": {"head_dim": 32, "rope_parameters": {
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 8, "beta_fast": 4.0,
        "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.5}},
    "qwen2_moe": {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48,
                  "norm_topk_prob": False, "use_sliding_window": False, "rms_norm_eps": 1e-6},
    "seed_oss": {"head_dim": 32, "attention_bias": True, "attention_out_bias": False, "mlp_bias": False, "rope_theta": 1e7},
    "hunyuan_v1_dense": _HUNYUAN,
    "hunyuan_v1_moe": _HUNYUAN | {"num_experts": 8, "moe_topk": [3, 3], "num_shared_expert": [1, 1], "intermediate_size": 48,
                                  "moe_intermediate_size": [48, 48]},
    "ernie4_5": {"head_dim": 32, "tie_word_embeddings": True, "rope_theta": 500000.0},
    "ernie4_5_moe": {"num_hidden_layers": 3, "moe_num_experts": 8, "moe_k": 3, "moe_num_shared_experts": 2,
                     "moe_intermediate_size": 24, "moe_layer_start_index": 1, "moe_layer_end_index": 2, "moe_layer_interval": 1,
                     "tie_word_embeddings": True, "rope_theta": 500000.0},
    "minimax_m2": {"head_dim": 32, "rotary_dim": 16, "num_local_experts": 8, "num_experts_per_tok": 3, "intermediate_size": 32,
                   "scoring_func": "sigmoid", "rms_norm_eps": 1e-6, "rope_theta": 5e6},
    "dots1": {"num_hidden_layers": 3, "num_key_value_heads": 4, "scoring_func": "sigmoid", "head_dim": 32, "n_routed_experts": 8,
              "num_experts_per_tok": 3, "n_shared_experts": 2, "moe_intermediate_size": 24, "first_k_dense_replace": 1,
              "norm_topk_prob": True, "routed_scaling_factor": 2.5, "n_group": 1, "topk_group": 1, "sliding_window": None,
              "max_window_layers": 3},
    "exaone4": {"num_hidden_layers": 4, "sliding_window": 8, "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
                "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                 "original_max_position_embeddings": 32}},
    "exaone_moe": {"num_hidden_layers": 4, "head_dim": 32, "sliding_window": 8, "num_experts": 8, "num_experts_per_tok": 3,
                   "layer_types": ["sliding_attention"] * 3 + ["full_attention"], "moe_intermediate_size": 32,
                   "num_shared_experts": 1, "first_k_dense_replace": 1, "norm_topk_prob": True, "routed_scaling_factor": 2.5,
                   "n_group": 1, "topk_group": 1, "scoring_func": "sigmoid", "mlp_layer_types": ["dense"] + ["sparse"] * 3},
    "bailing_moe": {"num_hidden_layers": 3, "head_dim": 16, "partial_rotary_factor": 0.5, "num_experts": 8,
                    "num_experts_per_tok": 3, "moe_intermediate_size": 32,
                    "num_shared_experts": 1, "first_k_dense_replace": 1, "norm_topk_prob": True,
                    "routed_scaling_factor": 2.5, "n_group": 4, "topk_group": 2, "score_function": "sigmoid",
                    "moe_router_enable_expert_bias": True, "use_qk_norm": True, "use_qkv_bias": False, "use_bias": False},
}  # fmt: skip

_MORE: dict[str, Config] = {
    # the models of 1.2B: no windows, so RoPE everywhere
    "exaone4-plain": {"model_type": "exaone4", "sliding_window": None, "tie_word_embeddings": True,
                      "layer_types": ["full_attention"] * 2,
                      "rope_scaling": _BASE["exaone4"]["rope_scaling"]},
}  # fmt: skip


def experts_of(config: Config) -> int:
    names = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    return next((config[name] for name in names if name in config), 0)


def _one(value: Any) -> Any:
    """Of a number for each layer, all equal."""
    return value[0] if isinstance(value, list) else value


def shapes(config: Config) -> Shapes:
    kind = KINDS[config["model_type"]]
    d, h, k = (config[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    c = config.get("head_dim") or d // h
    found: Shapes = {f"model.{kind.embedding}.weight": (config["vocab_size"], d), "model.norm.weight": (d,)}
    attention: Shapes = {f"{name}_proj.weight": (heads * c, d) for name, heads in (("q", h), ("k", k), ("v", k))}
    if kind.fused:
        attention = {f"{kind.fused}.weight": ((h + 2 * k) * c, d)}
    attention[f"{kind.output}.weight"] = (d, h * c)
    for name, heads in zip(kind.qk_norm, (h, k), strict=False):
        attention[f"{name}.weight"] = (heads * c if kind.whole_qk_norm else c,)
    if config["model_type"] in ("qwen2_moe", "seed_oss"):
        attention |= {f"{name}_proj.bias": (heads * c,) for name, heads in (("q", h), ("k", k), ("v", k))}
    common: Shapes = {f"{kind.attention}.{name}": shape for name, shape in attention.items()}
    norms = ("input_layernorm", "post_attention_layernorm") if kind.pre_norms else _LATE_NORMS
    common |= {f"{name}.weight": (d,) for name in norms}
    dense = _gated("mlp.", config["intermediate_size"], d, _GATED)
    for layer in range(config["num_hidden_layers"]):
        first = config.get("first_k_dense_replace", config.get("moe_layer_start_index", 0))
        block = common | (_mixture(config, kind, d) if experts_of(config) and layer >= first else dense)
        found |= {f"model.layers.{layer}.{part}": shape for part, shape in block.items()}
    return found if config["tie_word_embeddings"] else found | {"lm_head.weight": (config["vocab_size"], d)}


def _gated(prefix: str, f: int, d: int, parts: tuple[str, ...]) -> Shapes:
    return {f"{prefix}{part}.weight": shape for part, shape in zip(parts, ((f, d), (f, d), (d, f)), strict=True)}


def _mixture(config: Config, kind: Kind, d: int) -> Shapes:
    experts, f = experts_of(config), _one(config.get("moe_intermediate_size", config["intermediate_size"]))
    found: Shapes = {f"{kind.router}.weight": (experts, d)}
    if kind.bias:
        found[kind.bias] = (1, experts) if "moe_statics" in kind.bias else (experts,)
    for expert in range(experts):
        found |= _gated(f"{kind.experts.replace('*', str(expert))}.", f, d, kind.parts)
    if kind.shared:
        counts = ("n_shared_experts", "moe_num_shared_experts", "num_shared_experts")
        count = next((config[name] for name in counts if name in config), 1)
        found |= _gated(f"{kind.shared}.", config.get("shared_expert_intermediate_size", count * f), d, _GATED)
    if kind.shared == "mlp.shared_expert":
        found["mlp.shared_expert_gate.weight"] = (1, d)
    return found


def metadata(config: Config) -> dict[str, Any]:
    kind, rope = KINDS[config["model_type"]], config.get("rope_parameters") or config.get("rope_scaling") or {}
    keys = {name: _one(config[key]) for name, key in kind.keys.items() if key in config} | kind.fixed
    if "llama_4_scaling_beta" in rope:
        keys |= {"attention.temperature_scale": rope["llama_4_scaling_beta"], "rope.freq_base": rope["rope_theta"],
                 "rope.scaling.yarn_log_multiplier": rope["mscale_all_dim"]}  # fmt: skip
    if "layer_types" in config:
        keys["attention.sliding_window_pattern"] = [kind == "sliding_attention" for kind in config["layer_types"]]
    if "alpha" in rope:
        c = config["head_dim"]
        keys |= {"rope.freq_base": config["rope_theta"] * rope["alpha"] ** (c / (c - 2)), "rope.scaling.type": "none"}
    return keys


def tensors(config: Config, weights: Arrays) -> Arrays:
    kind, found, stacks = KINDS[config["model_type"]], {}, {}
    names = _names(kind)
    for name, value in weights.items():
        layer, part = "", name.removeprefix("model.")
        if part.startswith("layers."):
            _, number, part = part.split(".", 2)
            layer = f"blk.{number}."
        if part == kind.bias:
            found[f"{layer}exp_probs_b.bias"] = value.reshape(-1)
            continue
        stem, _, what = part.rpartition(".")
        before, _, after = kind.experts.partition("*")
        if stem.startswith(before) and after == "":
            ours = {"gate": "ffn_gate_exps", "up": "ffn_up_exps", "down": "ffn_down_exps"}
            role = ("gate", "up", "down")[kind.parts.index(stem.rpartition(".")[2])]
            stacks.setdefault(f"{layer}{ours[role]}.weight", []).append(value)
            continue
        found[f"{layer}{names[stem]}.{what}"] = _turned(config, kind, stem, value)
    return found | {name: np.stack(members) for name, members in stacks.items()}


def _names(kind: Kind) -> dict[str, str]:
    names = {kind.embedding: "token_embd", "norm": "output_norm", "lm_head": "output", kind.router: "ffn_gate_inp",
             "mlp.shared_expert_gate": "ffn_gate_inp_shexp"}  # fmt: skip
    parts = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", kind.output: "attn_output", kind.fused: "attn_qkv"}
    parts |= dict(zip(kind.qk_norm, ("attn_q_norm", "attn_k_norm"), strict=False))
    names |= {f"{kind.attention}.{part}": ours for part, ours in parts.items()}
    norms = {"input_layernorm": "attn_norm", "post_attention_layernorm": kind.ffn_norm}
    names |= norms if kind.pre_norms else dict(zip(_LATE_NORMS, ("post_attention_norm", "post_ffw_norm"), strict=True))
    for part, ours in zip(_GATED, ("ffn_gate", "ffn_up", "ffn_down"), strict=True):
        names |= {f"mlp.{part}": ours, f"{kind.shared}.{part}": f"{ours}_shexp"}
    return names


def _turned(config: Config, kind: Kind, stem: str, value: np.ndarray) -> np.ndarray:
    """Rows of q and k of architectures that rotate neighbours in GGUF and halves here."""
    if not kind.permuted or stem not in ("self_attn.q_proj", "self_attn.k_proj"):
        return value
    heads = config["num_attention_heads" if "q_proj" in stem else "num_key_value_heads"]
    return np.ascontiguousarray(value.reshape(heads, 2, -1, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape))


def stand_in(config: Config) -> Config:
    """Sarvam's model type in transformers is Ling 2.0 but for values of its config."""
    if config["model_type"] != "bailing_moe":
        return config
    return config | {"model_type": "sarvam_moe", "architectures": ["AutoModelForCausalLM"]}


FAMILY = Family(
    types={name: (kind.gguf, f"{kind.name}ForCausalLM") for name, kind in KINDS.items()},
    cases={KINDS[name].gguf: {"model_type": name} | values for name, values in _BASE.items()} | _MORE,
    shapes=shapes,
    metadata=metadata,
    tensors=tensors,
    stand_in=stand_in,
)
