"""Qwen3-Next and Qwen 3.5: gated delta nets in most layers, gated attention in the others."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from tests.families.family import Arrays, Config, Family, renamed

_BASE = {
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rms_norm_eps": 1e-6,
    "partial_rotary_factor": 0.25,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
}
_EXPERTS = {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48}
_MROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25, "mrope_interleaved": True,
          "mrope_section": [2, 1, 1]}  # fmt: skip
_NEXT = _BASE | _EXPERTS | {"model_type": "qwen3_next", "norm_topk_prob": True}
_DENSE = _BASE | {"model_type": "qwen3_5_text", "rope_parameters": _MROPE, "tie_word_embeddings": True}
_MIXTURE = _BASE | _EXPERTS | {"model_type": "qwen3_5_moe_text", "rope_parameters": _MROPE}
NAMES = {
    "embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp", "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp", "mlp.experts.gate_proj": "ffn_gate_exps", "mlp.experts.up_proj": "ffn_up_exps",
    "mlp.experts.down_proj": "ffn_down_exps", "linear_attn.in_proj_qkv": "attn_qkv", "linear_attn.in_proj_z": "attn_gate",
    "linear_attn.in_proj_a": "ssm_alpha", "linear_attn.in_proj_b": "ssm_beta", "linear_attn.in_proj_ba": "ssm_ba",
    "linear_attn.conv1d": "ssm_conv1d", "linear_attn.norm": "ssm_norm", "linear_attn.out_proj": "ssm_out", "ssm_dt": "ssm_dt",
}  # fmt: skip


def layers(config: Config) -> list[str]:
    """What each layer is: "linear_attention" or "full_attention"."""
    interval = config.get("full_attention_interval", 4)
    found = [
        "full_attention" if (layer + 1) % interval == 0 else "linear_attention" for layer in range(config["num_hidden_layers"])
    ]
    return list(config.get("layer_types") or found)


def sizes(config: Config) -> tuple[int, int, int, int]:
    """Key heads, value heads, and their widths, of the delta layers."""
    names = ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim")
    key_heads, heads, key_width, value_width = (int(config[f"linear_{name}"]) for name in names)
    return key_heads, heads, key_width, value_width


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    d, vocab = config["hidden_size"], config["vocab_size"]
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, d), "model.norm.weight": (d,)}
    for layer, kind in enumerate(layers(config)):
        block: dict[str, tuple[int, ...]] = {"input_layernorm.weight": (d,), "post_attention_layernorm.weight": (d,)}
        block |= _attention_shapes(config) if kind == "full_attention" else _delta_shapes(config)
        block |= _mixture_shapes(config) if "num_experts" in config else _dense_shapes("mlp.", d, config["intermediate_size"])
        found |= {f"model.layers.{layer}.{part}": shape for part, shape in block.items()}
    return found if config["tie_word_embeddings"] else found | {"lm_head.weight": (vocab, d)}


def _attention_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    d, h, k, c = (config[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim"))
    found: dict[str, tuple[int, ...]] = {f"self_attn.{name}_proj.weight": (rows * c, d) for name, rows in
                                         (("q", 2 * h), ("k", k), ("v", k))}  # fmt: skip
    if config.get("attention_bias"):
        found |= {name.replace("weight", "bias"): shape[:1] for name, shape in found.items()} | {"self_attn.o_proj.bias": (d,)}
    norms: dict[str, tuple[int, ...]] = {f"self_attn.{name}_norm.weight": (c,) for name in ("q", "k")}
    return found | norms | {"self_attn.o_proj.weight": (d, h * c)}


def _delta_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    d, (key_heads, heads, key_width, value_width) = config["hidden_size"], sizes(config)
    keys, values = key_heads * key_width, heads * value_width
    shapes: dict[str, tuple[int, ...]] = {
        "conv1d.weight": (2 * keys + values, 1, config["linear_conv_kernel_dim"]), "A_log": (heads,), "dt_bias": (heads,),
        "norm.weight": (value_width,), "out_proj.weight": (d, values),
    }  # fmt: skip
    if config["model_type"] == "qwen3_next":
        shapes |= {"in_proj_qkvz.weight": (2 * keys + 2 * values, d), "in_proj_ba.weight": (2 * heads, d)}
    else:
        shapes |= {"in_proj_qkv.weight": (2 * keys + values, d), "in_proj_z.weight": (values, d)}
        shapes |= {"in_proj_a.weight": (heads, d), "in_proj_b.weight": (heads, d)}
    return {f"linear_attn.{name}": shape for name, shape in shapes.items()}


def _dense_shapes(prefix: str, d: int, f: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}gate_proj.weight": (f, d), f"{prefix}up_proj.weight": (f, d), f"{prefix}down_proj.weight": (d, f)}


def _mixture_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    d, e, f = (config[key] for key in ("hidden_size", "num_experts", "moe_intermediate_size"))
    found: dict[str, tuple[int, ...]] = {"mlp.gate.weight": (e, d), "mlp.shared_expert_gate.weight": (1, d)}
    found |= _dense_shapes("mlp.shared_expert.", d, config["shared_expert_intermediate_size"])
    if config["model_type"] == "qwen3_next":
        for expert in range(e):
            found |= _dense_shapes(f"mlp.experts.{expert}.", d, f)
        return found
    return found | {"mlp.experts.gate_up_proj": (e, 2 * f, d), "mlp.experts.down_proj": (e, d, f)}


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Norms around 0, to which 1 is added, but for the one of delta layers; rates of decay from slow to fast."""
    if not name.endswith("A_log") and ("norm" not in name or "linear_attn" in name):
        return None
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
    values = ((raw >> np.uint64(40)).astype(np.float64) / 2**23 - 1).reshape(shape)
    return (values * (2 if name.endswith("A_log") else 0.3)).astype(np.float32)


def metadata(config: Config) -> dict[str, Any]:
    key_heads, heads, key_width, value_width = sizes(config)
    keys: dict[str, Any] = {
        "ssm.conv_kernel": config["linear_conv_kernel_dim"], "ssm.state_size": key_width, "ssm.group_count": key_heads,
        "ssm.time_step_rank": heads, "ssm.inner_size": heads * value_width,
        "attention.recurrent_layers": [kind == "linear_attention" for kind in layers(config)],
        "full_attention_interval": config.get("full_attention_interval", 4), "rope.dimension_count": config["head_dim"] // 4,
        "rope.dimension_sections": [2, 1, 1, 0],
    }  # fmt: skip
    if "num_experts" in config:
        keys |= {"expert_count": config["num_experts"], "expert_used_count": config["num_experts_per_tok"],
                 "expert_feed_forward_length": config["moe_intermediate_size"],
                 "expert_shared_feed_forward_length": config["shared_expert_intermediate_size"]}  # fmt: skip
    return keys


def tensors(config: Config, weights: Arrays) -> Arrays:
    """As llama.cpp's converter writes them: 1 added to norms, heads of Qwen3-Next one after another, those of Qwen 3.5 in the order
    in which key heads go round."""
    found: Arrays = {}
    experts: dict[str, list[np.ndarray]] = {}
    for name, value in weights.items():
        stem, _, last = name.rpartition(".")
        block = stem.removesuffix(".linear_attn")
        if ".experts." in name and last == "weight":
            part = f"{stem.partition('.experts.')[0]}.experts.{stem.rpartition('.')[2]}.weight"
            experts.setdefault(part, []).append(value)
        elif last == "gate_up_proj":
            half = value.shape[1] // 2
            found |= {f"{stem}.gate_proj.weight": value[:, :half], f"{stem}.up_proj.weight": value[:, half:]}
        elif last == "down_proj":
            found[f"{name}.weight"] = value
        elif last == "A_log":
            found[f"{block}.ssm_a.whole"] = tiled(config, -np.exp(value), 1)
        elif last == "dt_bias":
            found[f"{block}.ssm_dt.bias"] = tiled(config, value, 1)
        elif stem.endswith("in_proj_qkvz"):
            found |= _apart(config, name, value)
        else:
            found[name] = _ready(config, name, value)
    ready = renamed(found | {name: np.stack(stack) for name, stack in experts.items()}, NAMES | {"ssm_a": "ssm_a"})
    return {name.removesuffix(".whole"): value for name, value in ready.items()}


def _ready(config: Config, name: str, value: np.ndarray) -> np.ndarray:
    key_heads, _, key_width, value_width = sizes(config)
    keys = 2 * key_heads * key_width
    if "norm" in name and "linear_attn" not in name:
        return value + 1
    if name.endswith("conv1d.weight"):
        value = value.squeeze(1)
    if name.endswith(("conv1d.weight", "in_proj_qkv.weight")):
        return np.concatenate([value[:keys], tiled(config, value[keys:], value_width)])
    if name.endswith("in_proj_z.weight"):
        return tiled(config, value, value_width)
    if name.endswith(("in_proj_a.weight", "in_proj_b.weight")):
        return tiled(config, value, 1)
    if name.endswith("linear_attn.out_proj.weight"):
        return tiled(config, value.T, value_width).T
    return value.reshape(-1) if name.endswith("shared_expert_gate.weight") else value


def tiled(config: Config, value: np.ndarray, width: int) -> np.ndarray:
    """Rows of value heads, `width` each, in the order in which key heads go round."""
    if config["model_type"] == "qwen3_next":
        return value
    by_key_head = value.reshape(config["linear_num_key_heads"], -1, width, *value.shape[1:])
    return by_key_head.swapaxes(0, 1).reshape(value.shape)


def _apart(config: Config, name: str, value: np.ndarray) -> Arrays:
    key_heads, heads, key_width, value_width = sizes(config)
    each = value.reshape(key_heads, -1, value.shape[-1])
    cuts = np.cumsum([key_width, key_width, heads // key_heads * value_width])
    parts = [part.reshape(-1, value.shape[-1]) for part in np.split(each, cuts, axis=1)]
    return {name.replace("qkvz", "qkv"): np.concatenate(parts[:3]), name.replace("qkvz", "z"): parts[3]}


FAMILY = Family(
    types={
        "qwen3_next": ("qwen3next", "Qwen3NextForCausalLM"),
        "qwen3_5_text": ("qwen35", "Qwen3_5ForCausalLM"),
        "qwen3_5_moe_text": ("qwen35moe", "Qwen3_5MoeForCausalLM"),
    },
    cases={
        "qwen3next": _NEXT,
        "qwen35": _DENSE,
        "qwen35-equal": _DENSE
        | {"layer_types": None, "full_attention_interval": 2, "linear_num_key_heads": 3, "linear_num_value_heads": 3}
        | {"linear_value_head_dim": 24, "linear_conv_kernel_dim": 3, "attention_bias": True, "tie_word_embeddings": False},
        "qwen35moe": _MIXTURE,
    },
    shapes=shapes,
    metadata=metadata,
    tensors=tensors,
    draw=draw,
)
