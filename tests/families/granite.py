"""Granite, dense, with experts, and with a shared expert."""

from __future__ import annotations

from typing import Any

import numpy as np

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

_FACTORS = {"embedding_multiplier": 6.0, "residual_multiplier": 0.22, "attention_multiplier": 0.4, "logits_scaling": 0.3}
_DENSE = {"model_type": "granite", "attention_bias": False, "mlp_bias": False} | _FACTORS
_MIXTURE = _FACTORS | {"model_type": "granitemoe", "num_local_experts": 6, "num_experts_per_tok": 3, "intermediate_size": 32}
NAMES = ATTENTION_NAMES | {"block_sparse_moe.router.layer": "ffn_gate_inp", "block_sparse_moe.output_linear": "ffn_down_exps",
                           "shared_mlp.output_linear": "ffn_down_shexp"}  # fmt: skip
FUSED = {"block_sparse_moe.input_linear": "exps", "shared_mlp.input_linear": "shexp"}


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    d, f = config["hidden_size"], config["intermediate_size"]
    block: dict[str, tuple[int, ...]] = {"input_layernorm.weight": (d,), "post_attention_layernorm.weight": (d,)}
    block |= attention_shapes(config)
    if config["model_type"] == "granite":
        return of_layers(config, block | feed_forward_shapes(config, "gate_proj", "up_proj", "down_proj"))
    experts, shared = config["num_local_experts"], config.get("shared_intermediate_size", 0)
    block |= {"block_sparse_moe.router.layer.weight": (experts, d), "block_sparse_moe.input_linear.weight": (experts, 2 * f, d),
              "block_sparse_moe.output_linear.weight": (experts, d, f)}  # fmt: skip
    if shared:
        block |= {"shared_mlp.input_linear.weight": (2 * shared, d), "shared_mlp.output_linear.weight": (d, shared)}
    return of_layers(config, block)


def metadata(config: Config) -> dict[str, Any]:
    keys = {"attention.scale": config["attention_multiplier"], "embedding_scale": config["embedding_multiplier"],
            "residual_scale": config["residual_multiplier"], "logit_scale": config["logits_scaling"]}  # fmt: skip
    if "num_local_experts" in config:
        keys |= {"expert_count": config["num_local_experts"], "expert_used_count": config["num_experts_per_tok"]}
    if config.get("shared_intermediate_size"):
        keys["expert_shared_feed_forward_length"] = config["shared_intermediate_size"]
    return keys


def tensors(config: Config, weights: Arrays) -> Arrays:
    plain, halves = {}, {}
    for name, value in weights.items():
        part = name.removeprefix("model.layers.").partition(".")[2].removesuffix(".weight")
        if part in FUSED:
            gate, up = np.split(value, 2, axis=-2)
            layer = name.split(".")[2]
            halves |= {f"blk.{layer}.ffn_gate_{FUSED[part]}.weight": gate, f"blk.{layer}.ffn_up_{FUSED[part]}.weight": up}
        else:
            plain[name] = value
    return neighbours(config, renamed(plain, NAMES)) | {name: np.ascontiguousarray(half) for name, half in halves.items()}


FAMILY = Family(
    types={
        "granite": ("granite", "GraniteForCausalLM"),
        "granitemoe": ("granitemoe", "GraniteMoeForCausalLM"),
        "granitemoeshared": ("granitemoe", "GraniteMoeSharedForCausalLM"),
    },
    cases={
        "granite": _DENSE,
        "granitemoe": _MIXTURE,
        "granitemoe-shared": _MIXTURE | {"model_type": "granitemoeshared", "shared_intermediate_size": 64},
    },
    shapes=shapes,
    metadata=metadata,
    tensors=tensors,
)
