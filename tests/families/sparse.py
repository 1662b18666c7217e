"""DeepSeek V3.2 and GLM-5: latent attention over the positions that an indexer chooses, fewer than the prompts have."""

from __future__ import annotations

from typing import Any

from tests import mixtures
from tests.families.family import Arrays, Config, Family

INDEXER = {"wq_b": "attn_q_b", "wk": "attn_k", "k_norm": "k_norm", "weights_proj": "proj"}
_V32 = mixtures.CASES["deepseek3"] | {"model_type": "deepseek_v32", "index_n_heads": 12, "index_head_dim": 64, "index_topk": 8}
_GLM = _V32 | {"model_type": "glm_moe_dsa", "n_group": 1, "topk_group": 1, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0,
               "rope_scaling": None, "num_hidden_layers": 5, "mlp_layer_types": ["dense"] + ["sparse"] * 4,
               "qk_nope_head_dim": 24, "v_head_dim": 32, "index_topk": 7,
               "indexer_types": ["full", "shared", "shared", "full", "shared"]}  # fmt: skip


def like_v3(config: Config) -> Config:
    """What of the model `tests.mixtures` knows."""
    return config | {"model_type": "deepseek_v3"}


def indexed_layers(config: Config) -> list[bool]:
    """Which layers have an indexer."""
    layers = range(config["num_hidden_layers"])
    if config.get("indexer_types"):
        return [kind == "full" for kind in config["indexer_types"]]
    if pattern := config.get("index_topk_pattern"):
        return [kind == "F" for kind in pattern]
    every, offset = config.get("index_topk_freq", 1), config.get("index_skip_topk_offset", 2)
    return [max(layer - offset + 1, 0) % every == 0 for layer in layers]


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    found = mixtures.shapes_of(like_v3(config))
    heads, width, d, q_rank = (config[key] for key in ("index_n_heads", "index_head_dim", "hidden_size", "q_lora_rank"))
    for layer, own in enumerate(indexed_layers(config)):
        if own:
            sizes = {"wq_b.weight": (heads * width, q_rank), "wk.weight": (width, d), "weights_proj.weight": (heads, d)}
            sizes |= {"k_norm.weight": (width,), "k_norm.bias": (width,)}
            found |= {f"model.layers.{layer}.self_attn.indexer.{name}": size for name, size in sizes.items()}
    return found


def metadata(config: Config) -> dict[str, Any]:
    keys = mixtures.metadata(like_v3(config), naive=False)
    keys |= {f"attention.indexer.{ours}": config[f"index_{theirs}"]
             for ours, theirs in (("head_count", "n_heads"), ("key_length", "head_dim"), ("top_k", "topk"))}  # fmt: skip
    return keys | ({} if config["model_type"] == "deepseek_v32" else {"attention.indexer.types": indexed_layers(config)})


def tensors(config: Config, weights: Arrays) -> Arrays:
    others = {name: value for name, value in weights.items() if ".indexer." not in name}
    found = mixtures.tensors(like_v3(config), others, naive=False)
    for name, value in weights.items():
        if ".indexer." in name:
            _, _, layer, _, _, part, kind = name.split(".")
            found[f"blk.{layer}.indexer.{INDEXER[part]}.{kind}"] = value
    return found


FAMILY = Family(
    types={"deepseek_v32": ("deepseek32", "DeepseekV32ForCausalLM"), "glm_moe_dsa": ("glm-dsa", "GlmMoeDsaForCausalLM")},
    cases={
        "deepseek32": _V32,
        "deepseek32-dense": _V32 | {"index_topk": 256, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 2},
        "glm-dsa": _GLM,
        "glm-dsa-often": _GLM
        | {"indexer_types": None, "index_topk_freq": 2, "index_skip_topk_offset": 3, "index_n_heads": 16, "index_head_dim": 8}
        | {"rms_norm_eps": 1e-6},
    },
    shapes=shapes,
    metadata=metadata,
    tensors=tensors,
)
