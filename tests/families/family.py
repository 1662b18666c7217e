"""What the tests must know of a family to write its tiny checkpoints in both formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Config = dict[str, Any]
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Family:
    types: Mapping[str, tuple[str, str]]  # model_type: architecture of GGUF, class of transformers
    cases: Mapping[str, Config]  # name: what its config.json has beyond or in place of the base of `tests.checkpoints`
    shapes: Callable[[Config], dict[str, tuple[int, ...]]]  # of all weights, under their Hugging Face names
    metadata: Callable[[Config], dict[str, Any]]  # keys of GGUF beyond those of a dense model
    tensors: Callable[[Config, Arrays], Arrays]  # weights under their GGUF names, ready to multiply
    architecture: Callable[[Config], str] | None = None  # of GGUF, where the config decides it
    only_huggingface: tuple[str, ...] = ()  # cases that a GGUF file cannot say
    stand_in: Callable[[Config], Config] = lambda config: config  # what transformers reads, where it lacks the model type itself
    draw: Callable[[str, tuple[int, ...]], np.ndarray | None] = lambda name, shape: None  # values of a weight; None: the usual ones


def renamed(weights: Arrays, names: Mapping[str, str]) -> Arrays:
    """Weights under their GGUF names: `names` maps the part of a name within its layer, without "model." and ".weight"."""
    found: Arrays = {}
    for name, value in weights.items():
        stem, _, kind = name.removeprefix("model.").rpartition(".")
        layer, part = "", stem
        if stem.startswith("layers."):
            _, number, part = stem.split(".", 2)
            layer = f"blk.{number}."
        found[f"{layer}{names[part]}.{kind}"] = np.ascontiguousarray(value)
    return found


def of_layers(config: Config, block: Mapping[str, tuple[int, ...]], norm: str = "norm") -> dict[str, tuple[int, ...]]:
    """Shapes under whole names: the embedding, `block` in every layer, the last norm, and the output unless it is tied."""
    vocab, d = config["vocab_size"], config["hidden_size"]
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, d), f"model.{norm}.weight": (d,)}
    for layer in range(config["num_hidden_layers"]):
        found |= {f"model.layers.{layer}.{part}": shape for part, shape in block.items()}
    return found if config["tie_word_embeddings"] else found | {"lm_head.weight": (vocab, d)}


def attention_shapes(config: Config, output: str = "o_proj") -> dict[str, tuple[int, ...]]:
    d, h, k = (config[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    c = config.get("head_dim") or d // h
    found = {f"self_attn.{name}_proj.weight": (heads * c, d) for name, heads in (("q", h), ("k", k), ("v", k))}
    return found | {f"self_attn.{output}.weight": (d, h * c)}


def feed_forward_shapes(config: Config, *names: str) -> dict[str, tuple[int, ...]]:
    """The last of the names leads back to the width of the model."""
    d, f = config["hidden_size"], config["intermediate_size"]
    return {f"mlp.{name}.weight": (d, f) if name == names[-1] else (f, d) for name in names}


ATTENTION_NAMES = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output", "input_layernorm": "attn_norm",
                   "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
                   "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
                   "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}  # fmt: skip


def neighbours(config: Config, tensors: Arrays) -> Arrays:
    """Rows of q and k permuted, so that pairs of halves become neighbours."""
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    found = dict(tensors)
    for name, value in tensors.items():
        count = heads.get(name.rpartition(".")[0].rpartition(".")[2])
        if count is not None:
            turned = value.reshape(count, 2, -1, *value.shape[1:]).swapaxes(1, 2)
            found[name] = np.ascontiguousarray(turned.reshape(value.shape))
    return found
