"""Qwen 3 with experts: Qwen 3 blocks, many small experts. Reference: transformers qwen3_moe."""

from lacewing.models.architecture import Architecture
from lacewing.models.architectures import qwen2
from lacewing.models.names import EXPERT_NAMES, QK_NORM_NAMES, STANDARD_NAMES

ARCHITECTURE = Architecture(
    name="qwen3moe",
    models="Qwen 3 with experts, Qwen3-Coder",
    also=("qwen3_moe",),
    names=STANDARD_NAMES | QK_NORM_NAMES | EXPERT_NAMES,
    switches={"qk_norm": True},
    mixture={},
    gguf_defaults={"expert_weights_norm": True},
    defaults={
        "qwen3_moe": qwen2.DEFAULTS
        | {
            "num_key_value_heads": 4,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
        }
    },
)
