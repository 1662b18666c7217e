"""Cohere: Command R with norms of heads, and Command R7B with windows; LayerNorm and parallel branches."""

from __future__ import annotations

from typing import Any

from tests.families.family import ATTENTION_NAMES, Arrays, Config, Family, attention_shapes, feed_forward_shapes, of_layers, renamed

_COHERE = {"model_type": "cohere", "tie_word_embeddings": True, "layer_norm_eps": 1e-3, "logit_scale": 1.5, "rope_theta": 700.0}
_COHERE2 = _COHERE | {"model_type": "cohere2", "num_hidden_layers": 5, "sliding_window": 7, "rotary_pct": 1.0, "pad_token_id": 0}


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    h, k, c = config["num_attention_heads"], config["num_key_value_heads"], config["hidden_size"] // config["num_attention_heads"]
    block: dict[str, tuple[int, ...]] = {"input_layernorm.weight": (config["hidden_size"],)}
    block |= attention_shapes(config) | feed_forward_shapes(config, "gate_proj", "up_proj", "down_proj")
    if config.get("use_qk_norm"):
        block |= {"self_attn.q_norm.weight": (h, c), "self_attn.k_norm.weight": (k, c)}
    return of_layers(config, block)


def metadata(config: Config) -> dict[str, Any]:
    return {"attention.layer_norm_epsilon": config["layer_norm_eps"], "logit_scale": config["logit_scale"],
            "rope.scaling.type": "none"}  # fmt: skip


def tensors(config: Config, weights: Arrays) -> Arrays:
    return renamed(weights, ATTENTION_NAMES | {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"})


FAMILY = Family(
    types={"cohere": ("command-r", "CohereForCausalLM"), "cohere2": ("cohere2", "Cohere2ForCausalLM")},
    cases={"cohere": _COHERE, "cohere-plus": _COHERE | {"use_qk_norm": True}, "cohere2": _COHERE2},
    shapes=shapes,
    metadata=metadata,
    tensors=tensors,
)
