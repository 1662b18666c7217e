"""The mixture of experts of a config, from both formats. References: the key tables of GGUF; configuration_*.py of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lacewing.formats.checkpoint import TensorInfo
from lacewing.models.config import MixtureConfig
from lacewing.models.readers.metadata import MetadataReader

EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")  # names of one number in config.json
_GATINGS = {"1": ("softmax", False), "2": ("sigmoid", False), "3": ("softmax", True)}  # softmax of the chosen = renormalised
_SCORINGS = {"softmax": "softmax", "sigmoid": "sigmoid"}
_METHODS = {name: name for name in ("greedy", "group_limited_greedy", "noaux_tc", "plain")}


def gguf_mixture(
    keys: MetadataReader, tensors: Mapping[str, TensorInfo], layers: int, fixed: Mapping[str, Any]
) -> MixtureConfig | None:
    """None for a dense model. `fixed`: what never varies in this architecture."""
    experts = keys.integer("expert_count", 0, low=0, high=2**16)
    if experts == 0:
        return None
    gating, softmax_of_chosen = _GATINGS[keys.choice("expert_gating_func", {name: name for name in _GATINGS}, "1", numeric=True)]
    width = keys.integer("expert_feed_forward_length", _gguf_width(tensors) or keys.integer("feed_forward_length"))
    leading, step = keys.integer("leading_dense_block_count", 0, low=0), keys.integer("interleave_moe_layer_step", 1)
    bias = any(name.endswith(".exp_probs_b.bias") for name in tensors)
    values: dict[str, Any] = {
        "experts": experts,
        "active": keys.integer("expert_used_count", high=2**16),
        "width": width,
        "layers": tuple(layer >= leading and (layer + 1) % step == 0 for layer in range(layers)),
        "shared_width": _gguf_shared_width(keys, tensors, width),
        "gating": gating,
        "bias": bias,
        "groups": keys.integer("expert_group_count", 1, low=0) or 1,
        "groups_used": keys.integer("expert_group_used_count", 1, low=0) or 1,
        "group_best": 2 if bias else 1,
        "renormalise": keys.flag("expert_weights_norm") or softmax_of_chosen,
        "scale": keys.number("expert_weights_scale", 1, low=0, high=1e4) or 1.0,
    }
    return MixtureConfig(**{**values, **fixed})


def _gguf_width(tensors: Mapping[str, TensorInfo]) -> int | None:
    """Of an expert: columns of a down projection, which stands as a stack or as one tensor an expert in every layout."""
    found = (
        tensor.shape[-1] for name, tensor in tensors.items() if ".ffn_down_exps." in name or name.endswith(".ffn_down.0.weight")
    )
    return next(found, None)


def _gguf_shared_width(keys: MetadataReader, tensors: Mapping[str, TensorInfo], width: int) -> int:
    """Of the weights: some converters leave the number out, that of ERNIE guesses it from other sizes."""
    count = keys.integer("expert_shared_count", 0, low=0, high=2**10)
    named = keys.integer("expert_shared_feed_forward_length", count * width, low=0)
    found = (tensor.shape[0] for name, tensor in tensors.items() if name.endswith(".ffn_up_shexp.weight") and tensor.shape)
    return next(found, named)


def is_mixture(keys: MetadataReader, key: str) -> bool:
    """Whether a config.json describes one: `key` says so, or without one every model of the type is."""
    return keys.flag(key) if key else any(name in keys.defaults for name in EXPERT_COUNTS)


def huggingface_mixture(keys: MetadataReader, layers: int, fixed: Mapping[str, Any]) -> MixtureConfig:
    """`fixed`: what never varies in this architecture."""
    counts = [name for name in EXPERT_COUNTS if name in keys] or [name for name in EXPERT_COUNTS if name in keys.defaults]
    experts = {keys.integer(name, high=2**16) for name in counts}
    if len(experts) != 1:
        raise keys.error(" and ".join(counts) or EXPERT_COUNTS[0], "must give one number of experts")
    width = keys.integer("moe_intermediate_size", keys.integer("intermediate_size"))
    method, shared = keys.choice("topk_method", _METHODS, "plain"), keys.integer("n_shared_experts", 0, low=0, high=2**10)
    grouped = method != "greedy"
    values: dict[str, Any] = {
        "experts": experts.pop(),
        "active": keys.integer("top_k_experts" if "top_k_experts" in keys else "num_experts_per_tok", high=2**16),
        "width": width,
        "layers": _huggingface_layers(keys, layers),
        "shared_width": keys.integer("shared_expert_intermediate_size", width * shared, low=0),
        "gating": keys.choice("scoring_func", _SCORINGS | keys.defaults.get("gatings", {}), "softmax"),
        "bias": method == "noaux_tc",
        "groups": keys.integer("n_group", 1) if grouped else 1,
        "groups_used": keys.integer("topk_group", 1) if grouped else 1,
        "group_best": 1 if method == "group_limited_greedy" else 2,
        "renormalise": keys.flag("norm_topk_prob"),
        "scale": keys.number("routed_scaling_factor", 1, low=1e-6, high=1e4),
    }
    if not grouped:  # read, but without a meaning
        keys.get("n_group"), keys.get("topk_group")
    return MixtureConfig(**{**values, **fixed})


def _huggingface_layers(keys: MetadataReader, layers: int) -> tuple[bool, ...]:
    """Dense ones first, or every n-th, or a list of those that are dense or mixtures, or of what each layer is."""
    first = keys.integer("first_k_dense_replace", 0, low=0)
    step = keys.integer("decoder_sparse_step", keys.integer("interleave_moe_layer_step", 1))
    dense, mixed = keys.get("mlp_only_layers", []), keys.get("moe_layers")
    for name, listed in (("mlp_only_layers", dense), ("moe_layers", mixed)):
        known = listed is None or (isinstance(listed, list) and all(type(layer) is int for layer in listed))
        if not known:
            raise keys.error(name, "must be a list of layers")
    if keys.get("mlp_layer_types") is not None:
        return tuple(kind == "sparse" for kind in keys.words("mlp_layer_types", layers, ("dense", "sparse")))
    if mixed:
        return tuple(layer in mixed for layer in range(layers))
    return tuple(layer >= first and (layer + 1) % step == 0 and layer not in dense for layer in range(layers))
