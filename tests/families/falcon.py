"""Falcon-H1: attention and Mamba-2 beside each other in every layer, with factors that GGUF files have in their weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.families import mamba
from tests.families.family import ATTENTION_NAMES, Arrays, Config, Family, attention_shapes, of_layers

_FALCON = {
    "model_type": "falcon_h1", "num_hidden_layers": 3, "head_dim": 32, "rope_theta": 1e11, "mamba_d_ssm": 96, "mamba_n_heads": 6,
    "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_chunk_size": 8,
    "mamba_conv_bias": True, "mamba_proj_bias": False, "projectors_bias": False, "mamba_rms_norm": False, "attention_bias": False,
    "mamba_norm_before_gate": False, "mamba_use_mlp": True, "mlp_bias": False, "attn_layer_indices": None, "rope_scaling": None,
    "embedding_multiplier": 5.656854249492381, "lm_head_multiplier": 0.6, "key_multiplier": 0.5, "attention_in_multiplier": 1.5,
    "attention_out_multiplier": 0.9375, "ssm_in_multiplier": 1.25, "ssm_out_multiplier": 0.7,
    "mlp_multipliers": [0.8838834764831844, 0.5859375], "ssm_multipliers": [0.75, 0.5, 0.5, 1.5, 2.0],
}  # fmt: skip
_FACTORS = {  # of the weights of a layer in GGUF, by what they are there
    "q_proj": ("attention_in",), "k_proj": ("attention_in", "key"), "v_proj": ("attention_in",), "self_attn.o_proj":
    ("attention_out",), "mamba.in_proj": ("ssm_in",), "mamba.out_proj": ("ssm_out",),
}  # fmt: skip
NAMES = ATTENTION_NAMES | {
    "final_layernorm": "output_norm", "pre_ff_layernorm": "ffn_norm", "feed_forward.gate_proj": "ffn_gate",
    "feed_forward.up_proj": "ffn_up", "feed_forward.down_proj": "ffn_down", "mamba.in_proj": "ssm_in",
    "mamba.conv1d": "ssm_conv1d", "mamba.out_proj": "ssm_out", "mamba.norm": "ssm_norm",
}  # fmt: skip


def sizes(config: Config) -> tuple[int, int, int]:
    """Of the mixer: its width, what its groups share, its heads."""
    return config["mamba_d_ssm"], config["mamba_n_groups"] * config["mamba_d_state"], config["mamba_n_heads"]


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    d, f, (inner, shared, heads) = config["hidden_size"], config["intermediate_size"], sizes(config)
    whole = 2 * (inner + shared) + heads
    block: dict[str, tuple[int, ...]] = {"input_layernorm.weight": (d,), "pre_ff_layernorm.weight": (d,)}
    block |= attention_shapes(config) | {"mamba.in_proj.weight": (whole, d), "mamba.out_proj.weight": (d, inner)}
    block |= {"mamba.conv1d.weight": (inner + 2 * shared, 1, config["mamba_d_conv"])}
    block |= dict.fromkeys(("mamba.dt_bias", "mamba.A_log", "mamba.D"), (heads,))
    forward = {"gate_proj": (f, d), "up_proj": (f, d), "down_proj": (d, f)}
    block |= {f"feed_forward.{name}.weight": shape for name, shape in forward.items()}
    if config["mamba_rms_norm"]:
        block["mamba.norm.weight"] = (inner,)
    if config["mamba_conv_bias"]:
        block["mamba.conv1d.bias"] = (inner + 2 * shared,)
    if config["projectors_bias"]:
        block["mamba.out_proj.bias"] = (d,)
    if config["mamba_proj_bias"]:
        block["mamba.in_proj.bias"] = (whole,)
    if config["mlp_bias"]:
        block |= {f"feed_forward.{name}.bias": shape[:1] for name, shape in forward.items()}
    if config["attention_bias"]:
        block |= {name.replace("weight", "bias"): shape[:1] for name, shape in attention_shapes(config).items()}
    return of_layers(config, block, norm="final_layernorm")


def metadata(config: Config) -> dict[str, Any]:
    inner, _, heads = sizes(config)
    return {"ssm.conv_kernel": config["mamba_d_conv"], "ssm.inner_size": inner, "ssm.state_size": config["mamba_d_state"],
            "ssm.time_step_rank": heads, "ssm.group_count": config["mamba_n_groups"]}  # fmt: skip


def tensors(config: Config, weights: Arrays) -> Arrays:
    found: Arrays = {}
    for name, value in weights.items():
        stem = name.removeprefix("model.")
        layer, part = "", stem
        if stem.startswith("layers."):
            _, number, part = stem.split(".", 2)
            layer = f"blk.{number}."
        special = {"mamba.A_log": ("ssm_a", -np.exp(value).reshape(-1, 1)), "mamba.D": ("ssm_d", value.reshape(-1, 1)),
                   "mamba.dt_bias": ("ssm_dt.bias", value), "pre_ff_layernorm.weight": ("ffn_norm", value)}  # fmt: skip
        if part in special:
            ours, value = special[part]
        else:
            stem, _, kind = part.rpartition(".")
            ours, value = f"{NAMES[stem]}.{kind}", _multiplied(config, stem, value)
        found[layer + ours] = np.ascontiguousarray(value)
    return found


def _multiplied(config: Config, stem: str, value: np.ndarray) -> np.ndarray:
    """A weight with its factors, as llama.cpp's converter makes it."""
    if stem == "mamba.conv1d":
        return value.squeeze(1) if value.ndim == 3 else value
    if stem == "mamba.norm":
        return value.reshape(config["mamba_n_groups"], -1)
    if stem in ("embed_tokens", "lm_head"):
        return value * config["embedding_multiplier" if stem == "embed_tokens" else "lm_head_multiplier"]
    if stem in ("feed_forward.gate_proj", "feed_forward.down_proj"):
        return value * config["mlp_multipliers"]["down" in stem]
    for ours, factors in _FACTORS.items():
        if stem.endswith(ours):
            for factor in factors:
                value = value * config[f"{factor}_multiplier"]
    if stem == "mamba.in_proj":
        inner, shared, heads = sizes(config)
        value = value * np.repeat(config["ssm_multipliers"], (inner, inner, shared, shared, heads))[:, None]
    return value.astype(np.float32)


FAMILY = Family(
    types={"falcon_h1": ("falcon-h1", "FalconH1ForCausalLM")},
    cases={
        "falcon-h1": _FALCON,
        "falcon-h1-norm": _FALCON | {"mamba_rms_norm": True, "mamba_n_groups": 2, "num_key_value_heads": 4, "mamba_d_conv": 3},
        "falcon-h1-tied": _FALCON
        | {
            "tie_word_embeddings": True,
            "mamba_rms_norm": True,
            "mamba_norm_before_gate": True,
            "mamba_d_head": "auto",
            "mamba_conv_bias": False,
            "mamba_proj_bias": True,
            "projectors_bias": True,
            "mlp_bias": True,
            "attention_bias": True,
            "attention_in_multiplier": 1.0,
            "ssm_in_multiplier": 1.0,
            "mamba_n_groups": 3,
        },
    },
    shapes=shapes,
    metadata=metadata,
    tensors=tensors,
    draw=mamba.draw,
    only_huggingface=("falcon-h1-tied",),  # the factors of the embedding and the output differ
)
