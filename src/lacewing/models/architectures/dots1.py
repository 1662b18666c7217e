"""dots.llm1 of rednote: Qwen 3's attention, DeepSeek V3's experts. Reference: transformers dots1."""

from lacewing.models.architecture import Architecture
from lacewing.models.names import EXPERT_NAMES, QK_NORM_NAMES, STANDARD_NAMES

ARCHITECTURE = Architecture(
    name="dots1",
    models="dots.llm1",
    names=STANDARD_NAMES | QK_NORM_NAMES | EXPERT_NAMES,
    switches={"qk_norm": True},
    mixture={"gating": "sigmoid", "bias": True},
    defaults={
        "dots1": {
            "rms_norm_eps": 1e-6,
            "hidden_act": "silu",
            "max_position_embeddings": 2048,
            "vocab_size": 152064,
            "num_key_value_heads": 32,
            "sliding_window": 4096,
            "max_window_layers": 62,
            "n_routed_experts": 128,
            "n_shared_experts": 2,
            "num_experts_per_tok": 6,
            "moe_intermediate_size": 1408,
            "gatings": {"noaux_tc": "sigmoid"},  # as the makers name it
        }
    },
)
