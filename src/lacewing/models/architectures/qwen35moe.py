"""Qwen 3.5 and later with experts: the layers of qwen35, many small experts, one shared. Reference: transformers qwen3_5_moe."""

from dataclasses import replace

from lacewing.models.architectures import qwen35

_DEFAULTS = {
    **qwen35.DEFAULTS,
    "hidden_size": 2048,
    "intermediate_size": 512,  # of no layer: all have experts
    "num_hidden_layers": 40,
    "num_key_value_heads": 2,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
    "num_experts": 256,
    "num_experts_per_tok": 8,
}

ARCHITECTURE = replace(
    qwen35.ARCHITECTURE,
    name="qwen35moe",
    models="Qwen 3.5, 3.6 and 3.7 with experts (text)",
    also=("qwen3_5_moe", "qwen3_5_moe_text"),
    gguf_defaults={"feed_forward_length": 512},
    mixture={"shared_gate": True, "renormalise": True},
    defaults=dict.fromkeys(("qwen3_5_moe", "qwen3_5_moe_text"), _DEFAULTS),
)
