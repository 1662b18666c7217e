"""Gemma 4: heads of two sizes, keys that are values, embeddings for each layer, a shared KV cache, experts beside a dense
network. Reference: transformers gemma4; llama.cpp for what a GGUF file says.
"""

from dataclasses import replace
from typing import Any

from lacewing.models.architecture import Architecture
from lacewing.models.architectures import gemma
from lacewing.models.blocks.feed_forward import chosen_experts, feed_forward
from lacewing.models.blocks.per_layer import per_layer_branch, per_layer_inputs
from lacewing.models.blocks.shared_kv import shared_attention
from lacewing.models.builder import Block, Builder
from lacewing.models.config import HeadSizes, MixtureConfig, ModelConfig, PerLayerConfig
from lacewing.models.names import PER_LAYER_NAMES, POST_NORM_NAMES, QK_NORM_NAMES, STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader
from lacewing.program.ops import AddNorm, Buffer
from lacewing.program.stream_ops import AddScale

NAMES = {
    "layer_scalar": "layer_output_scale.weight",
    "router.proj": "ffn_gate_inp",
    "router.scale": "ffn_gate_inp.scale",
    "router.per_expert_scale": "ffn_down_exps.scale",
    "experts.gate_up_proj": "ffn_gate_up_exps.weight",
    "experts.down_proj": "ffn_down_exps.weight",
    "pre_feedforward_layernorm_2": "pre_ffw_norm_2",
    "post_feedforward_layernorm_1": "post_ffw_norm_1",
    "post_feedforward_layernorm_2": "post_ffw_norm_2",
}
ROPES = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
}
DEFAULTS: dict[str, Any] = gemma.DEFAULTS | {
    "max_position_embeddings": 131072,
    "vocab_size": 262144,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 30,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "global_head_dim": 512,
    "hidden_size_per_layer_input": 256,
    "vocab_size_per_layer_input": 262144,
    "rope_parameters": ROPES,
    "rope_kinds": {"proportional": "proportional"},
    "pad_token_id": 0,
}
UNIFIED = DEFAULTS | {"hidden_size_per_layer_input": 0, "sliding_window": 1024, "max_position_embeddings": 262144}


def block(config: ModelConfig, layer: int) -> Block:
    return layer_block


def layer_block(b: Builder, layer: int) -> None:
    """x (T, D) to x: unlike elsewhere nothing is left in branch, as the layer's factor comes last."""
    config, name = b.config, f"blk.{layer}"
    b.norm(b.x, f"{name}.attn_norm", b.normed)
    shared_attention(b, layer)
    b.norm(b.branch, f"{name}.post_attention_norm", b.branch)
    b.norm(b.x, f"{name}.ffn_norm", b.normed, add=b.branch)
    feed_forward(b, layer)
    if config.mixture is None:
        b.norm(b.branch, f"{name}.post_ffw_norm", b.branch)
    else:
        experts_beside(config.mixture, b, layer)
    if config.per_layer is not None:
        b.ops.append(AddScale(b.x, b.branch, b.x))
        per_layer_branch(b, layer, b.x)
    scale = b.weight(f"{name}.layer_output_scale.weight", 1) if config.layer_scale else None
    b.ops.append(AddScale(b.x, b.branch, b.x, scale))


def experts_beside(m: MixtureConfig, b: Builder, layer: int) -> None:
    """What the dense network gave in branch, and chosen experts of x, to branch. The router has a norm of its own."""
    config, name = b.config, f"blk.{layer}"
    scores, dense, chosen = Buffer("scores", m.experts).view(), Buffer("dense", config.width).view(), b.normed
    b.norm(b.branch, f"{name}.post_ffw_norm_1", dense)
    b.norm(b.x, f"{name}.ffn_gate_inp", b.normed, kind="scale")
    b.linear(b.normed, layer, ("ffn_gate_inp", scores))
    b.ops.append(AddScale(scores, None, scores, factor=config.width**-0.5))
    b.norm(b.x, f"{name}.pre_ffw_norm_2", b.normed)
    chosen_experts(m, b, layer, scores)
    b.norm(b.branch, f"{name}.post_ffw_norm_2", chosen)
    b.ops.append(AddNorm(dense, chosen, b.weight(f"{name}.post_ffw_norm.weight", config.width), b.branch, config.eps))


def end(b: Builder) -> None:
    b.norm(b.x, "output_norm", b.hidden)


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    local, whole = HeadSizes(config.heads, config.key_heads, config.head_width), _global_heads(keys, config)
    config = replace(config, windows=(*config.windows[:-1], None))  # the last layer sees everything, whatever layer_types says
    width = keys.integer("hidden_size_per_layer_input", 0, low=0)
    rows = keys.integer("vocab_size_per_layer_input", config.vocab_size)
    other = keys.integer("pad_token_id", 0, low=0, high=rows - 1) if width else 0
    shared = keys.integer("num_kv_shared_layers", 0, low=0, high=config.layers)
    config = replace(
        config,
        key_heads=whole.key_heads,
        head_width=whole.width,
        local_heads=local if local != whole else None,
        rope=replace(config.rope, width=whole.width if config.rope.kind == "proportional" else config.rope.width),
        shared_kv=shared,
        keys_are_values=keys.flag("attention_k_eq_v"),
        per_layer=PerLayerConfig(width, rows, other) if width else None,
        final_softcap=keys.optional_number("final_logit_softcapping", low=0, high=1e6) or None,
    )
    if keys.flag("use_double_wide_mlp") and shared:
        narrow = config.feed_forward
        config = replace(config, feed_forwards=(narrow,) * (config.layers - shared) + (2 * narrow,) * shared)
    return gemma.scaled(keys, config)


def _global_heads(keys: MetadataReader, config: ModelConfig) -> HeadSizes:
    """Of layers that see everything: by keys of their own, or by a dictionary for each such layer, which transformers 5 writes."""
    listed = keys.nested("per_layer_config")
    if listed is not None and listed.values:
        found = set()
        for layer in listed.names():
            inner = listed.nested(layer)
            if inner is None or not set(inner.values) <= {"head_dim", "num_key_value_heads"}:
                raise listed.error(layer, "must give head_dim and num_key_value_heads only")
            sizes = inner.integer("head_dim", config.head_width, high=2**16), inner.integer("num_key_value_heads", config.key_heads)
            found.add(sizes)
        layers = {str(layer) for layer, window in enumerate(config.windows) if window is None}
        if len(found) != 1 or set(listed.names()) != layers:
            raise keys.error("per_layer_config", "must be the same for each layer of full attention, and have no others")
        width, key_heads = found.pop()
        return HeadSizes(config.heads, key_heads, width)
    key_heads = keys.integer("num_global_key_value_heads", config.key_heads, high=2**16)
    if not keys.flag("attention_k_eq_v"):  # the key holds only with it
        key_heads = config.key_heads
    return HeadSizes(config.heads, key_heads, keys.integer("global_head_dim", 512, high=2**16))


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    return replace(
        gemma.scaled(keys, config),
        shared_kv=keys.integer("attention.shared_kv_layers", 0, low=0, high=config.layers),
        final_softcap=keys.optional_number("final_logit_softcapping", low=0, high=1e6) or None,
    )


ARCHITECTURE = Architecture(
    name="gemma4",
    models="Gemma 4 (E2B, E4B, 12B, 31B, 26B-A4B)",
    also=("gemma4_text", "gemma4_unified", "gemma4_unified_text"),
    names=STANDARD_NAMES | POST_NORM_NAMES | QK_NORM_NAMES | PER_LAYER_NAMES | NAMES,
    switches={"post_norms": True, "qk_norm": True, "attention_scale": 1.0},
    huggingface_switches={"layer_scale": True},
    gguf_switches={"activation": "gelu_tanh"},
    gguf_presence={"layer_scale": "blk.0.layer_output_scale.weight"},
    gguf_defaults={"rope.freq_base": 1e6, "rope.freq_base_swa": 1e4},
    mixture={"renormalise": True, "expert_scales": True},
    mixture_key="enable_moe_block",
    local_heads=True,
    per_layer=True,
    block=block,
    begin=per_layer_inputs,
    end=end,
    defaults={
        "gemma4_text": DEFAULTS,
        "gemma4": DEFAULTS,
        "gemma4_unified_text": UNIFIED,
        "gemma4_unified": UNIFIED,
    },
    huggingface=huggingface,
    gguf=gguf,
)
