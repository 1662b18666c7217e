"""Gemma 4: heads of two sizes; the E models with embeddings for each layer and a shared KV cache, experts beside a dense
network, keys that are values."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.families.family import Arrays, Config, Family, renamed

_ROPES = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
}
_BASE: Config = {
    "model_type": "gemma4_text",
    "head_dim": 16,
    "global_head_dim": 32,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-6,
    "pad_token_id": 0,
    "num_hidden_layers": 4,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "rope_parameters": _ROPES,
    "final_logit_softcapping": 3.0,
    "hidden_size_per_layer_input": 0,
    "attention_k_eq_v": True,
    "num_global_key_value_heads": 1,
    "num_kv_shared_layers": 0,
    "use_double_wide_mlp": False,
    "enable_moe_block": False,
}
_EDGE = _BASE | {
    "num_hidden_layers": 6,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 3,
    "attention_k_eq_v": False,
    "num_global_key_value_heads": None,
    "use_double_wide_mlp": True,
    "hidden_size_per_layer_input": 32,
    "vocab_size_per_layer_input": 320,
}
_MIXTURE = _BASE | {"enable_moe_block": True, "num_experts": 8, "top_k_experts": 3, "moe_intermediate_size": 32}
NAMES = {
    "embed_tokens": "token_embd", "norm": "output_norm", "embed_tokens_per_layer": "per_layer_token_embd",
    "per_layer_model_projection": "per_layer_model_proj", "per_layer_projection_norm": "per_layer_proj_norm",
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "per_layer_input_gate": "inp_gate", "per_layer_projection": "proj",
    "post_per_layer_input_norm": "post_norm", "pre_feedforward_layernorm_2": "pre_ffw_norm_2",
    "post_feedforward_layernorm_1": "post_ffw_norm_1", "post_feedforward_layernorm_2": "post_ffw_norm_2",
    "router.proj": "ffn_gate_inp",
}  # fmt: skip
_ALONE = {"layer_scalar": "layer_output_scale.weight", "router.scale": "ffn_gate_inp.scale",
          "router.per_expert_scale": "ffn_down_exps.scale", "experts.gate_up_proj": "ffn_gate_up_exps.weight",
          "experts.down_proj": "ffn_down_exps.weight"}  # fmt: skip


def sliding(config: Config) -> list[bool]:
    return [kind == "sliding_attention" for kind in config["layer_types"]]


def key_heads(config: Config) -> list[int]:
    """Of each layer."""
    whole = config["num_global_key_value_heads"] if config["attention_k_eq_v"] else config["num_key_value_heads"]
    return [config["num_key_value_heads"] if local else whole for local in sliding(config)]


def feed_forwards(config: Config) -> list[int]:
    own = config["num_hidden_layers"] - config["num_kv_shared_layers"]
    wide = 1 + config["use_double_wide_mlp"]
    return [config["intermediate_size"] * (1 if layer < own else wide) for layer in range(config["num_hidden_layers"])]


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    d, h, p, layers = (
        config[key] for key in ("hidden_size", "num_attention_heads", "hidden_size_per_layer_input", "num_hidden_layers")
    )
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], d), "model.norm.weight": (d,)}
    if p:
        found |= {"model.embed_tokens_per_layer.weight": (config["vocab_size_per_layer_input"], layers * p),
                  "model.per_layer_model_projection.weight": (layers * p, d),
                  "model.per_layer_projection_norm.weight": (p,)}  # fmt: skip
    for layer in range(layers):
        local, f = sliding(config)[layer], feed_forwards(config)[layer]
        c, k = config["head_dim"] if local else config["global_head_dim"], key_heads(config)[layer]
        norms = ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"]
        block: dict[str, tuple[int, ...]] = {
            "layer_scalar": (1,), "self_attn.q_proj.weight": (h * c, d), "self_attn.o_proj.weight": (d, h * c),
            "self_attn.q_norm.weight": (c,), "mlp.gate_proj.weight": (f, d), "mlp.up_proj.weight": (f, d),
            "mlp.down_proj.weight": (d, f),
        }  # fmt: skip
        if layer < layers - config["num_kv_shared_layers"]:
            block |= {"self_attn.k_proj.weight": (k * c, d), "self_attn.k_norm.weight": (c,)}
            if local or not config["attention_k_eq_v"]:
                block["self_attn.v_proj.weight"] = (k * c, d)
        if p:
            block |= {"per_layer_input_gate.weight": (p, d), "per_layer_projection.weight": (d, p)}
            norms.append("post_per_layer_input_norm")
        if config["enable_moe_block"]:
            e, w = config["num_experts"], config["moe_intermediate_size"]
            block |= {"router.proj.weight": (e, d), "router.scale": (d,), "router.per_expert_scale": (e,),
                      "experts.gate_up_proj": (e, 2 * w, d), "experts.down_proj": (e, d, w)}  # fmt: skip
            norms += ["pre_feedforward_layernorm_2", "post_feedforward_layernorm_1", "post_feedforward_layernorm_2"]
        block |= {f"{norm}.weight": (d,) for norm in norms}
        found |= {f"model.layers.{layer}.{part}": shape for part, shape in block.items()}
    return found


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Norms are not of 1 + w, as in other Gemmas; factors are near one."""
    from tests.checkpoints import draw as usual

    if name.endswith(("layer_scalar", "scale")):
        return usual(f"norm of {name}", shape, gemma=False)
    return usual(name, shape, gemma=False) if "norm" in name else None


def metadata(config: Config) -> dict[str, Any]:
    whole, local = config["global_head_dim"], config["head_dim"]
    keys: dict[str, Any] = {
        "attention.shared_kv_layers": config["num_kv_shared_layers"],
        "embedding_length_per_layer_input": config["hidden_size_per_layer_input"],
        "attention.sliding_window": config["sliding_window"], "attention.sliding_window_pattern": sliding(config),
        "attention.key_length": whole, "attention.value_length": whole, "attention.key_length_swa": local,
        "attention.value_length_swa": local, "attention.head_count_kv": key_heads(config), "rope.dimension_count": whole,
        "rope.dimension_count_swa": local, "rope.freq_base": 1000000.0, "rope.freq_base_swa": 10000.0,
        "final_logit_softcapping": config["final_logit_softcapping"],
    }  # fmt: skip
    if config["use_double_wide_mlp"]:
        keys["feed_forward_length"] = feed_forwards(config)
    if config["enable_moe_block"]:
        keys |= {"expert_count": config["num_experts"], "expert_used_count": config["top_k_experts"],
                 "expert_feed_forward_length": config["moe_intermediate_size"]}  # fmt: skip
    return keys


def tensors(config: Config, weights: Arrays) -> Arrays:
    alone = {name: value for name, value in weights.items() if name.endswith(tuple(_ALONE))}
    found = renamed({name: value for name, value in weights.items() if name not in alone}, NAMES)
    for name, value in alone.items():
        _, _, layer, part = name.split(".", 3)
        found[f"blk.{layer}.{_ALONE[part]}"] = value
    pairs = config["global_head_dim"] // 2
    turning = int(pairs * config["rope_parameters"]["full_attention"]["partial_rotary_factor"])
    return found | {"rope_freqs.weight": np.array([1.0] * turning + [1e30] * (pairs - turning), np.float32)}


FAMILY = Family(
    types={
        "gemma4_text": ("gemma4", "Gemma4ForCausalLM"),
        "gemma4_unified_text": ("gemma4", "Gemma4UnifiedForCausalLM"),
    },
    cases={
        "gemma4": _BASE,
        "gemma4-unified": _BASE | {"model_type": "gemma4_unified_text", "attention_k_eq_v": False},
        "gemma4-edge": _EDGE,
        "gemma4-moe": _MIXTURE,
    },
    shapes=shapes,
    metadata=metadata,
    tensors=tensors,
    draw=draw,
)
