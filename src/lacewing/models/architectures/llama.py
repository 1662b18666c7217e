"""Llama 1 to 3, Mistral, SmolLM, distilled R1: the standard block. References: transformers llama and mistral."""

from lacewing.models.architecture import Architecture

ARCHITECTURE = Architecture(
    name="llama",
    defaults={
        "llama": {"rms_norm_eps": 1e-6, "hidden_act": "silu", "max_position_embeddings": 2048, "vocab_size": 32000},
        "mistral": {
            "rms_norm_eps": 1e-6,
            "hidden_act": "silu",
            "max_position_embeddings": 131072,
            "vocab_size": 32000,
            "num_key_value_heads": 8,
            "sliding_window": 4096,
        },
    },
    gguf_switches={"adjacent_rope": True},  # the converter permutes the rows of q and k
)
