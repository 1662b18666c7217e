"""Llama 4: one expert a token, chosen weight on its input, chunked attention, layers without rotation.

Reference: transformers llama4; llama.cpp for what a GGUF file leaves out.
"""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.config import AttentionTemperatureConfig, ModelConfig
from lacewing.models.names import STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader

NAMES = {
    "feed_forward.gate_proj": "ffn_gate",
    "feed_forward.up_proj": "ffn_up",
    "feed_forward.down_proj": "ffn_down",
    "feed_forward.router": "ffn_gate_inp",
    "feed_forward.experts.gate_up_proj": "ffn_gate_up_exps.weight",
    "feed_forward.experts.down_proj": "ffn_down_exps.weight",
    "feed_forward.experts.*.gate_proj": "ffn_gate_exps.*",
    "feed_forward.experts.*.up_proj": "ffn_up_exps.*",
    "feed_forward.experts.*.down_proj": "ffn_down_exps.*",
    "feed_forward.shared_expert.gate_proj": "ffn_gate_shexp",
    "feed_forward.shared_expert.up_proj": "ffn_up_shexp",
    "feed_forward.shared_expert.down_proj": "ffn_down_shexp",
}
INTERVAL = 4  # every fourth layer sees everything, without rotation


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    layers = config.layers
    interval = keys.integer("no_rope_layer_interval", INTERVAL)
    rotated = keys.flags("no_rope_layers", layers) if keys.get("no_rope_layers") else _every(layers, interval)  # 1: with rotation
    kinds = ["chunked_attention" if flag else "full_attention" for flag in rotated]
    if keys.get("layer_types"):
        kinds = keys.words("layer_types", layers, ("chunked_attention", "full_attention"))
    chunk = keys.optional_integer("attention_chunk_size")
    temperature = None
    scale, floor = keys.number("attn_scale", 0.1, low=0, high=1e3), keys.integer("floor_scale", 8192, high=2**31)
    tuning = keys.get("attn_temperature_tuning", True)
    if not isinstance(tuning, bool | int):  # a number in older files
        raise keys.error("attn_temperature_tuning", f"is {tuning!r}; it must be true, false or a number")
    if tuning:
        temperature = AttentionTemperatureConfig(scale, floor, 1, rotated_layers=False)
    mixture, width = config.mixture, keys.integer("intermediate_size_mlp", 16384)
    if mixture is not None:  # in FP8 every expert is a linear layer of its own
        mixture = replace(mixture, transposed=config.scale_block is None, shared_width=mixture.width)
    return replace(
        config,
        mixture=mixture,
        feed_forward=width,
        windows=(None,) * layers,
        chunks=tuple(chunk if kind == "chunked_attention" else None for kind in kinds),
        nope_layers=frozenset(layer for layer, flag in enumerate(rotated) if not flag),
        qk_norm_after_rope=keys.flag("use_qk_norm", True),
        attention_temperature=temperature,
    )


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """Chunks have the key of windows, where 0 means none; the norm of heads is missing in the model of 128 experts."""
    layers, chunk = config.layers, keys.integer("attention.sliding_window", 8192, low=0, high=2**31)
    rotated = _every(layers, INTERVAL if chunk else layers)
    scale = keys.number("attention.temperature_scale", 0.1, low=0, high=1e3)
    length = keys.integer("attention.temperature_length", 8192, high=2**31)
    experts = config.mixture.experts if config.mixture else 0
    return replace(
        config,
        windows=(None,) * layers,
        chunks=tuple((chunk or None) if flag else None for flag in rotated),
        nope_layers=frozenset(layer for layer, flag in enumerate(rotated) if not flag),
        qk_norm_after_rope=keys.flag("use_qk_norm", experts != 128),
        attention_temperature=AttentionTemperatureConfig(scale, length, 1, rotated_layers=False) if chunk else None,
    )


def _every(layers: int, interval: int) -> list[bool]:
    return [(layer + 1) % interval != 0 for layer in range(layers)]


ARCHITECTURE = Architecture(
    name="llama4",
    models="Llama 4 Scout and Maverick (text)",
    also=("llama4_text",),
    names=STANDARD_NAMES | NAMES,
    switches={"adjacent_rope": True},
    mixture={"gating": "sigmoid", "weight_on_input": True},
    gguf_defaults={"expert_gating_func": 2},
    defaults={
        "llama4_text": {
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "max_position_embeddings": 131072,
            "vocab_size": 202048,
            "hidden_size": 5120,
            "intermediate_size": 8192,
            "num_hidden_layers": 48,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "rope_theta": 500000.0,
            "layer_kinds": ("chunked_attention",),
            "num_local_experts": 16,
            "num_experts_per_tok": 1,
        }
    },
    huggingface=huggingface,
    gguf=gguf,
)
