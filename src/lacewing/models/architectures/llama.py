"""Llama 1 to 3, Mistral, Mixtral, SmolLM, distilled R1: the standard block. References: transformers llama, mistral, mixtral."""

from lacewing.models.architecture import Architecture
from lacewing.models.names import STANDARD_NAMES

MIXTRAL_NAMES = {
    "block_sparse_moe.gate": "ffn_gate_inp",
    "block_sparse_moe.experts.*.w1": "ffn_gate_exps.*",
    "block_sparse_moe.experts.*.w3": "ffn_up_exps.*",
    "block_sparse_moe.experts.*.w2": "ffn_down_exps.*",
}

ARCHITECTURE = Architecture(
    name="llama",
    models="Llama 1 to 3.3, Mistral 7B, Nemo and Small 3, Mixtral, SmolLM2, TinyLlama, Yi, distilled R1",
    also=("mistral", "mixtral"),
    names=STANDARD_NAMES | MIXTRAL_NAMES,
    mixture={"renormalise": True},
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
        "mixtral": {
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "max_position_embeddings": 131072,
            "vocab_size": 32000,
            "num_key_value_heads": 8,
            "rope_theta": 1e6,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
        },
    },
    gguf_switches={"adjacent_rope": True},  # the converter permutes the rows of q and k
)
