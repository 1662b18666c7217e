"""Qwen 3: Llama blocks with a norm on each query and key head. Reference: transformers qwen3."""

from lacewing.models.architecture import Architecture
from lacewing.models.names import QK_NORM_NAMES, STANDARD_NAMES

ARCHITECTURE = Architecture(
    name="qwen3",
    models="Qwen 3",
    names=STANDARD_NAMES | QK_NORM_NAMES,
    switches={"qk_norm": True},
    defaults={
        "qwen3": {
            "rms_norm_eps": 1e-6,
            "hidden_act": "silu",
            "head_dim": 128,
            "max_position_embeddings": 32768,
            "vocab_size": 151936,
            "use_sliding_window": False,
            "sliding_window": 4096,
            "max_window_layers": 28,
        }
    },
)
