"""Apertus: xIELU, whose constants are weights of one value."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.families.family import ATTENTION_NAMES, Arrays, Config, Family, attention_shapes, feed_forward_shapes, of_layers, renamed

_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
PARTS = ("alpha_p", "alpha_n", "beta", "eps")
VALUES = {"alpha_p": 0.7, "alpha_n": -0.4, "beta": 0.5, "eps": -1e-6}


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    d, c = config["hidden_size"], config["hidden_size"] // config["num_attention_heads"]
    block: dict[str, tuple[int, ...]] = {"attention_layernorm.weight": (d,), "feedforward_layernorm.weight": (d,)}
    block |= attention_shapes(config) | feed_forward_shapes(config, "up_proj", "down_proj")
    block |= {"self_attn.q_norm.weight": (c,), "self_attn.k_norm.weight": (c,)}
    block |= {"mlp.act_fn.alpha_p": (1,), "mlp.act_fn.alpha_n": (1,), "mlp.act_fn.beta": (), "mlp.act_fn.eps": ()}
    return of_layers(config, block)


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Constants that differ from layer to layer."""
    part = name.rpartition(".")[2]
    if part not in VALUES:
        return None
    layer = int(name.split(".")[2]) if part.startswith("alpha") else 0
    return np.full(shape, VALUES[part] + 0.3 * layer, np.float32)


def metadata(config: Config) -> dict[str, Any]:
    return {}


def tensors(config: Config, weights: Arrays) -> Arrays:
    plain = {name: value for name, value in weights.items() if ".act_fn." not in name}
    norms = {"attention_layernorm": "attn_norm", "feedforward_layernorm": "ffn_norm", "self_attn.q_norm": "attn_q_norm",
             "self_attn.k_norm": "attn_k_norm"}  # fmt: skip
    return renamed(plain, ATTENTION_NAMES | norms)


FAMILY = Family(
    types={"apertus": ("apertus", "ApertusForCausalLM")},
    cases={"apertus": {"model_type": "apertus", "hidden_act": "xielu", "rope_scaling": _ROPE, "rope_theta": 5000.0}},
    shapes=shapes,
    metadata=metadata,
    tensors=tensors,
    only_huggingface=("apertus",),  # a file's constants stand outside of the keys of the architecture
    draw=draw,
)
