"""Step 3.5 and 3.7 Flash of StepFun: windows with heads of their own, a gate for each head, many small experts with limits.

Reference: transformers step3p7 (the language model; the makers' own files call it step3p5); llama.cpp for what a GGUF file says.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lacewing.models.architecture import Architecture
from lacewing.models.config import HeadSizes, ModelConfig
from lacewing.models.names import EXPERT_NAMES, QK_NORM_NAMES, STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader
from lacewing.models.rope import RopeConfig
from lacewing.options import shown_value

NAMES = {
    "self_attn.g_proj": "attn_gate",
    "moe.gate": "ffn_gate_inp",
    "moe.router_bias": "exp_probs_b.bias",
    "moe.gate_proj": "ffn_gate_exps",
    "moe.up_proj": "ffn_up_exps",
    "moe.down_proj": "ffn_down_exps",
    "share_expert.gate_proj": "ffn_gate_shexp",
    "share_expert.up_proj": "ffn_up_shexp",
    "share_expert.down_proj": "ffn_down_shexp",
}
KINDS = ("full_attention", "sliding_attention")
_BY_LAYER = {"rope_theta": "rope_theta", "partial_rotary_factors": "partial_rotary_factor"}  # and what a kind of layer has of it
# keys of its files that say what all of them are, each with that
_FIXED = {"use_moe": True, "moe_every_n_layer": 1, "moe_layer_offset": 0, "yarn_only_types": ["full_attention"], "gating": True,
          "use_qk_norm": True, "use_head_wise_attn_gate": True, "zero_centered": True}  # fmt: skip
_UNUSED = ("need_fp32_gate", "att_impl_type", "max_seq_len", "mtp_layer_types", "mtp_mlp_layer_types", "per_layer_config")


def usual(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Bases and shares of the rotation for each kind of layer, not for each layer; the list of mixtures, not its spelling."""
    found, layers = dict(values), values.get("num_hidden_layers")
    kinds, listed = values.get("layer_types"), values.get("moe_layers_enum")
    if isinstance(layers, int) and 0 < layers <= 1024:  # those of layers that predict come last
        kinds = kinds[:layers] if isinstance(kinds, list) else ["full_attention"] * layers if kinds is None else kinds
        found["layer_types"] = kinds
    if isinstance(listed, str) and re.fullmatch(r"\s*[0-9]{1,6}\s*(,\s*[0-9]{1,6}\s*)*", listed):
        found["moe_layers"] = [int(part) for part in listed.split(",")]
        del found["moe_layers_enum"]
    elif isinstance(listed, list):
        found["moe_layers"] = found.pop("moe_layers_enum")
    if isinstance(kinds, list) and any(isinstance(values.get(name), list) for name in _BY_LAYER):
        ropes = {kind: _rope(values, kind, [layer for layer, each in enumerate(kinds) if each == kind]) for kind in KINDS}
        if all(rope is not None for rope in ropes.values()):
            scaling = found.pop("rope_scaling", None)
            ropes["full_attention"] |= scaling if isinstance(scaling, Mapping) else {}  # type: ignore[operator]
            found = {name: value for name, value in found.items() if name not in _BY_LAYER} | {"rope_parameters": ropes}
    return found


def _rope(values: Mapping[str, Any], kind: str, layers: list[int]) -> dict[str, Any] | None:
    """The rotation of layers of one kind; None where they differ or their lists are too short."""
    found: dict[str, Any] = {"rope_type": "default"}
    for name, ours in _BY_LAYER.items():
        value = values.get(name)
        if isinstance(value, list) and layers:
            each = [value[layer] for layer in layers if layer < len(value)]
            if len(each) < len(layers) or any(entry != each[0] for entry in each):
                return None
            found[ours] = each[0]
        elif value is not None and not isinstance(value, list):
            found[ours] = value
    return found


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    for name, value in _FIXED.items():
        if keys.get(name, value) != value:
            raise keys.error(name, f"is {shown_value(keys.get(name), 60)}; this version knows {value!r}")
    for name in _UNUSED:
        keys.get(name)
    if keys.get("moe_layers_enum") is not None:  # left by `usual`
        raise keys.error("moe_layers_enum", f"is {shown_value(keys.get('moe_layers_enum'), 60)}; it must be numbers of layers")
    if config.activation != "silu":
        raise keys.error("hidden_act", f"is {config.activation}; this version knows silu for this architecture")
    head = keys.number("query_pre_attn_scalar", config.head_width, low=1e-6, high=1e6)
    mixture = config.mixture
    if mixture is not None:
        bias, limits = keys.flag("use_moe_router_bias", True), limits_of(keys, "swiglu_limits", config.layers)
        mixture = replace(mixture, bias=bias, limits=limits)
    return replace(
        config,
        local_heads=_local_heads(keys, config),
        attention_scale=head**-0.5,
        limits=limits_of(keys, "swiglu_limits_shared", config.layers),
        mixture=mixture,
    )


def _local_heads(keys: MetadataReader, config: ModelConfig) -> HeadSizes | None:
    """Of layers with a window, where they differ."""
    other = keys.nested("attention_other_setting") or MetadataReader({}, keys.where)
    heads = keys.integer("num_sliding_attention_heads", other.integer("num_attention_heads", config.heads, high=2**16), high=2**16)
    key_heads, width = other.integer("num_attention_groups", config.key_heads), other.integer("head_dim", config.head_width)
    if width != config.head_width:
        raise other.error("head_dim", f"is {width}, that of the other layers {config.head_width}; this version knows one for all")
    other.refuse_unknown(other.unread(), {"attention_type": (KINDS[1],), "true_head_dim": (width,)})
    found = HeadSizes(heads, key_heads, width)
    return found if found != HeadSizes(config.heads, config.key_heads, width) else None


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """As in llama.cpp: layers that see everything rotate half of what the key says, with the divisors of the file."""
    if keys.integer("moe_every_n_layers", 1) != 1:
        raise keys.error("moe_every_n_layers", "is not 1, which this version does not know")
    whole = config.rope.width
    rope = replace(config.rope, width=whole // 2, divisors=config.rope.divisors[: whole // 4])
    mixture = config.mixture
    if mixture is not None:
        mixture = replace(mixture, limits=limits_of(keys, "swiglu_clamp_exp", config.layers))
    return replace(
        config,
        rope=rope,
        local_rope=RopeConfig(config.local_rope.width, config.local_rope.base),
        limits=limits_of(keys, "swiglu_clamp_shexp", config.layers),
        mixture=mixture,
    )


def limits_of(keys: MetadataReader, name: str, layers: int) -> tuple[float | None, ...]:
    """One for each layer, those of layers that predict come last; () where none has one. Zero and null are none."""
    value = keys.get(name)
    if value is None:
        return ()
    listed = value if isinstance(value, list) else [value] * layers
    known = all(entry is None or (type(entry) in (int, float) and 0 <= entry < 1e30) for entry in listed)
    if not known or len(listed) < layers:
        raise keys.error(name, f"must be a limit for each of the {layers} layers, 0 for none")
    found = tuple(float(entry) if entry else None for entry in listed[:layers])
    return found if any(found) else ()


DEFAULTS = {
    "vocab_size": 128815,
    "hidden_size": 4096,
    "intermediate_size": 11264,
    "num_hidden_layers": 45,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 128000,
    "rms_norm_eps": 1e-5,
    "n_routed_experts": 288,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 1280,
    "shared_expert_intermediate_size": 1280,
    "first_k_dense_replace": 3,
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
}

ARCHITECTURE = Architecture(
    name="step35",
    models="Step-3.5-Flash, Step-3.7-Flash (text)",
    also=("step3p5", "step3p7"),
    names=STANDARD_NAMES | QK_NORM_NAMES | EXPERT_NAMES | NAMES,
    synonyms={
        "num_key_value_heads": "num_attention_groups",
        "n_routed_experts": "moe_num_experts",
        "num_experts_per_tok": "moe_top_k",
        "shared_expert_intermediate_size": "share_expert_dim",
        "scoring_func": "moe_router_activation",
        "norm_topk_prob": "norm_expert_weight",
        "routed_scaling_factor": "moe_router_scaling_factor",
    },
    usual=usual,
    switches={"qk_norm": True, "head_gates": True},
    huggingface_switches={"norm_offset": 1.0},
    gguf_defaults={"expert_gating_func": 2},
    mixture={},
    uncounted=("token_embd.weight",),
    local_heads=True,
    defaults={"step3p5": DEFAULTS, "step3p7": DEFAULTS},
    huggingface=huggingface,
    gguf=gguf,
)
