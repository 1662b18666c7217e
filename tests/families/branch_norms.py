"""Llama's parts with norms elsewhere: OLMo 2 and 3, GLM-4 of both years, and SmolLM3 without rotation in some layers."""

from __future__ import annotations

import math
from typing import Any

from tests.families.family import (
    ATTENTION_NAMES,
    Arrays,
    Config,
    Family,
    attention_shapes,
    feed_forward_shapes,
    neighbours,
    of_layers,
    renamed,
)

_OLMO3 = {"model_type": "olmo3", "num_hidden_layers": 4, "num_key_value_heads": 4, "sliding_window": 7,
          "rope_theta": 500000.0,  # transformers gives no other one to the layers with a window
          "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64,
                           "beta_fast": 32.0, "beta_slow": 1.0, "attention_factor": 0.1 * math.log(4) + 1}}  # fmt: skip
_GLM = {"model_type": "glm", "head_dim": 32, "partial_rotary_factor": 0.5, "attention_bias": True, "pad_token_id": 0}
_SMOLLM3 = {"model_type": "smollm3", "num_hidden_layers": 5, "tie_word_embeddings": True, "rope_theta": 5000.0, "pad_token_id": 0}
_NORMS = {
    "olmo": {"post_attention_layernorm": "post_attention_norm", "post_feedforward_layernorm": "post_ffw_norm"},
    "glm": {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"},
    "glm4": {"input_layernorm": "attn_norm", "post_self_attn_layernorm": "post_attention_norm",
             "post_attention_layernorm": "ffn_norm", "post_mlp_layernorm": "post_ffw_norm"},
}  # fmt: skip


def norms(config: Config) -> dict[str, str]:
    """Of a layer: their names in both formats."""
    kind = config["model_type"]
    return _NORMS["olmo" if kind.startswith("olmo") else kind if kind in _NORMS else "glm"]


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    d, kind = config["hidden_size"], config["model_type"]
    block = {f"{name}.weight": (d,) for name in norms(config)} | attention_shapes(config)
    if kind.startswith("glm"):
        f = config["intermediate_size"]
        block |= {"mlp.gate_up_proj.weight": (2 * f, d), "mlp.down_proj.weight": (d, f)}
        block |= {f"self_attn.{part}_proj.bias": block[f"self_attn.{part}_proj.weight"][:1] for part in "qkv"}
        return of_layers(config, block)
    block |= feed_forward_shapes(config, "gate_proj", "up_proj", "down_proj")
    if kind.startswith("olmo"):
        block |= {f"self_attn.{part}_norm.weight": block[f"self_attn.{part}_proj.weight"][:1] for part in "qk"}
    return of_layers(config, block)


def metadata(config: Config) -> dict[str, Any]:
    if config["model_type"] != "olmo3":
        return {}
    window = [(layer + 1) % 4 != 0 for layer in range(config["num_hidden_layers"])]
    return {"attention.sliding_window_pattern": window,
            "rope.scaling.yarn_attn_factor": config["rope_scaling"]["attention_factor"]}  # fmt: skip


def tensors(config: Config, weights: Arrays) -> Arrays:
    names = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_up_proj": "ffn_up"}
    found = renamed(weights, ATTENTION_NAMES | names | norms(config))
    return neighbours(config, found) if config["model_type"] == "smollm3" else found


FAMILY = Family(
    types={
        "olmo2": ("olmo2", "Olmo2ForCausalLM"),
        "olmo3": ("olmo2", "Olmo3ForCausalLM"),
        "glm": ("chatglm", "GlmForCausalLM"),
        "glm4": ("glm4", "Glm4ForCausalLM"),
        "smollm3": ("smollm3", "SmolLM3ForCausalLM"),
    },
    cases={
        "olmo2": {"model_type": "olmo2"},
        "olmo3": _OLMO3,
        "glm": _GLM,
        "glm4": _GLM | {"model_type": "glm4"},
        "smollm3": _SMOLLM3,
    },
    shapes=shapes,
    metadata=metadata,
    tensors=tensors,
)
