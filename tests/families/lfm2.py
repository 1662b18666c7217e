"""LFM2 of Liquid AI: gated short convolutions, attention in some layers."""

from __future__ import annotations

from typing import Any

from tests.families.family import Arrays, Config, Family, renamed

_BASE = {
    "model_type": "lfm2",
    "num_hidden_layers": 4,
    "layer_types": ["conv", "full_attention", "conv", "conv"],
    "conv_L_cache": 3,
    "conv_bias": False,
    "norm_eps": 1e-3,
    "block_auto_adjust_ff_dim": True,
    "block_ffn_dim_multiplier": 1.0,
    "block_multiple_of": 32,
    "block_ff_dim": 160,  # wins over intermediate_size, and comes to 128
    "tie_word_embeddings": True,
    "rope_theta": 1000000.0,
}
NAMES = {
    "embed_tokens": "token_embd", "embedding_norm": "token_embd_norm", "lm_head": "output", "operator_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
    "conv.in_proj": "shortconv.in_proj", "conv.conv": "shortconv.conv", "conv.out_proj": "shortconv.out_proj",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.out_proj": "attn_output",
    "self_attn.q_layernorm": "attn_q_norm", "self_attn.k_layernorm": "attn_k_norm", "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down", "feed_forward.w3": "ffn_up",
}  # fmt: skip


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    d, h, k, taps = (config[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads", "conv_L_cache"))
    f, c = feed_forward(config), d // h
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], d),
        "model.embedding_norm.weight": (d,),
    }
    for layer, kind in enumerate(layers(config)):
        block: dict[str, tuple[int, ...]] = {"operator_norm.weight": (d,), "ffn_norm.weight": (d,)}
        block |= {f"feed_forward.{name}.weight": shape for name, shape in (("w1", (f, d)), ("w2", (d, f)), ("w3", (f, d)))}
        if kind == "conv":
            block |= {"conv.in_proj.weight": (3 * d, d), "conv.conv.weight": (d, 1, taps), "conv.out_proj.weight": (d, d)}
            if config["conv_bias"]:
                block |= {"conv.in_proj.bias": (3 * d,), "conv.conv.bias": (d,), "conv.out_proj.bias": (d,)}
        else:
            block |= {f"self_attn.{name}_proj.weight": (heads * c, d) for name, heads in (("q", h), ("k", k), ("v", k))}
            block |= {"self_attn.out_proj.weight": (d, h * c)}
            block |= {f"self_attn.{name}_layernorm.weight": (c,) for name in ("q", "k")}
        found |= {f"model.layers.{layer}.{part}": shape for part, shape in block.items()}
    return found if config["tie_word_embeddings"] else found | {"lm_head.weight": (config["vocab_size"], d)}


def layers(config: Config) -> list[str]:
    """What each layer is: "conv" or "full_attention"."""
    listed = config["layer_types"]
    found = range(config["num_hidden_layers"])
    return listed or ["full_attention" if layer in config["full_attn_idxs"] else "conv" for layer in found]


def feed_forward(config: Config) -> int:
    """F of the weights, which is not the F of the config."""
    width, multiple = config["block_ff_dim"], config["block_multiple_of"]
    if not config["block_auto_adjust_ff_dim"]:
        return int(width)
    return -(-int(config["block_ffn_dim_multiplier"] * int(2 * width / 3)) // multiple) * int(multiple)


def metadata(config: Config) -> dict[str, Any]:
    key_heads = [config["num_key_value_heads"] * (kind != "conv") for kind in layers(config)]
    return {"attention.head_count_kv": key_heads, "attention.layer_norm_rms_epsilon": config["norm_eps"],
            "feed_forward_length": feed_forward(config), "shortconv.l_cache": config["conv_L_cache"]}  # fmt: skip


def tensors(config: Config, weights: Arrays) -> Arrays:
    found = renamed(weights, NAMES)
    return {name: value.squeeze(1) if name.endswith("shortconv.conv.weight") else value for name, value in found.items()}


FAMILY = Family(
    types={"lfm2": ("lfm2", "Lfm2ForCausalLM")},
    cases={
        "lfm2": _BASE,
        "lfm2-biases": _BASE
        | {"layer_types": None, "full_attn_idxs": [2], "conv_L_cache": 5, "conv_bias": True, "block_auto_adjust_ff_dim": False}
        | {"tie_word_embeddings": False, "num_key_value_heads": 1, "rope_theta": 500.0},
    },
    shapes=shapes,
    metadata=metadata,
    tensors=tensors,
    only_huggingface=("lfm2-biases",),
)
