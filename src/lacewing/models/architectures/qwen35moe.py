"""Qwen 3.5 and later with experts: the layers of qwen35, many small experts, one shared. Reference: transformers qwen3_5_moe."""

from functools import partial

from lacewing.models.architecture import Architecture
from lacewing.models.blocks.delta import hybrid_block
from lacewing.models.readers.delta import DEFAULTS, GGUF_NAMES, NAMES, SWITCHES, gguf_delta, huggingface_delta

_DEFAULTS = {
    **DEFAULTS,
    "vocab_size": 248320,
    "hidden_size": 2048,
    "intermediate_size": 512,  # of no layer: all have experts
    "num_hidden_layers": 40,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
    "num_experts": 256,
    "num_experts_per_tok": 8,
}

ARCHITECTURE = Architecture(
    name="qwen35moe",
    models="Qwen 3.5, 3.6 and 3.7 with experts (text)",
    also=("qwen3_5_moe", "qwen3_5_moe_text"),
    names=NAMES,
    switches=SWITCHES,
    huggingface_switches={"norm_offset": 1.0},
    gguf_names=GGUF_NAMES,
    gguf_defaults={"feed_forward_length": 512},
    hybrid=True,
    mixture={"shared_gate": True, "renormalise": True},
    block=hybrid_block,
    defaults=dict.fromkeys(("qwen3_5_moe", "qwen3_5_moe_text"), _DEFAULTS),
    huggingface=partial(huggingface_delta, joint=False),
    gguf=partial(gguf_delta, tiled=True),
)
