"""Hybrids of gated delta nets and gated attention, from both formats. References: configuration_qwen3_next.py of transformers;
llama.cpp's loaders for what a GGUF file says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lacewing.models.config import DeltaConfig, ModelConfig
from lacewing.models.names import EXPERT_NAMES, QK_NORM_NAMES, STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader

NAMES = STANDARD_NAMES | QK_NORM_NAMES | EXPERT_NAMES | {
    "post_attention_layernorm": "post_attention_norm",
    "linear_attn.in_proj_qkvz": "ssm_in",
    "linear_attn.in_proj_ba": "ssm_ba",
    "linear_attn.in_proj_qkv": "attn_qkv",
    "linear_attn.in_proj_z": "attn_gate",
    "linear_attn.in_proj_b": "ssm_beta",
    "linear_attn.in_proj_a": "ssm_alpha",
    "linear_attn.conv1d": "ssm_conv1d",
    "linear_attn.A_log": "ssm_a.weight",
    "linear_attn.dt_bias": "ssm_dt.bias",
    "linear_attn.norm": "ssm_norm",
    "linear_attn.out_proj": "ssm_out",
}  # fmt: skip
GGUF_NAMES = {"blk.*.ssm_a": "blk.*.ssm_a.weight", "blk.*.ffn_norm.weight": "blk.*.post_attention_norm.weight"}
SWITCHES: Mapping[str, Any] = {"qk_norm": True, "attention_gate": True, "feed_forward_norm": "post_attention_norm"}
# what the classes of transformers take where config.json does not say it
DEFAULTS: Mapping[str, Any] = {
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "head_dim": 256,
    "partial_rotary_factor": 0.25,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "layer_kinds": ("linear_attention",),
}
# of layers for multi-token prediction, which are left out, and of how others store states
_UNUSED = ("mtp_num_hidden_layers", "mtp_use_dedicated_embeddings", "mamba_ssm_dtype")


def huggingface_delta(keys: MetadataReader, config: ModelConfig, joint: bool) -> ModelConfig:
    """`joint`: q, k, v and gates stand in one weight, beta and decay in another."""
    for name in _UNUSED:
        keys.get(name)
    if not keys.flag("attn_output_gate", True):
        raise keys.error("attn_output_gate", "is false, which this version does not know")
    keys.choice("output_gate_type", {"swish": "silu", "silu": "silu"}, "swish")
    if config.activation != "silu":  # it is the convolution's, too
        raise keys.error("hidden_act", f"is {config.activation}; this version knows silu for this architecture")
    kinds, interval = keys.get("layer_types"), keys.integer("full_attention_interval", 4)
    layers = tuple((layer + 1) % interval != 0 for layer in range(config.layers))
    if kinds is not None:  # checked by the reader of windows
        layers = tuple(kind == "linear_attention" for kind in kinds)
    delta = DeltaConfig(
        layers=layers,
        kernel=keys.integer("linear_conv_kernel_dim", low=2, high=64),
        heads=keys.integer("linear_num_value_heads", high=2**12),
        key_heads=keys.integer("linear_num_key_heads", high=2**12),
        key_width=keys.integer("linear_key_head_dim", high=2**12),
        value_width=keys.integer("linear_value_head_dim", high=2**12),
        log_rate=True,
        joint_gates=joint,
    )
    if delta.heads % delta.key_heads:
        raise keys.error("linear_num_value_heads", f"is {delta.heads}, which {delta.key_heads} key heads do not divide")
    return replace(config, delta=delta, fused_delta=joint)


def gguf_delta(keys: MetadataReader, config: ModelConfig, tiled: bool) -> ModelConfig:
    """`tiled`: value heads stand in the order in which key heads go round."""
    heads, key_heads = keys.integer("ssm.time_step_rank", high=2**12), keys.integer("ssm.group_count", high=2**12)
    inner = keys.integer("ssm.inner_size")
    if heads % key_heads:
        raise keys.error("ssm.time_step_rank", f"is {heads}, which {key_heads} key heads do not divide")
    if inner % heads:
        raise keys.error("ssm.inner_size", f"is {inner}, which {heads} heads do not divide")
    delta = DeltaConfig(
        layers=_gguf_layers(keys, config),
        kernel=keys.integer("ssm.conv_kernel", low=2, high=64),
        heads=heads,
        key_heads=key_heads,
        key_width=keys.integer("ssm.state_size", high=2**12),
        value_width=inner // heads,
        tiled=tiled,
        joint_gates=not tiled,
    )
    return replace(config, delta=delta, fused_qkv=False)


def _gguf_layers(keys: MetadataReader, config: ModelConfig) -> tuple[bool, ...]:
    """By flags, or by layers of 0 key heads, as Ollama writes them, else every so many layers have attention."""
    interval, key_heads = keys.integer("full_attention_interval", 4), keys.get("attention.head_count_kv")
    if keys.get("attention.recurrent_layers") is not None:
        return tuple(keys.flags("attention.recurrent_layers", config.layers))
    if isinstance(key_heads, list) and 0 in key_heads:
        if len(key_heads) < config.layers:
            raise keys.error("attention.head_count_kv", f"has {len(key_heads)} numbers; there are {config.layers} layers")
        return tuple(count == 0 for count in key_heads[: config.layers])
    return tuple((layer + 1) % interval != 0 for layer in range(config.layers))
