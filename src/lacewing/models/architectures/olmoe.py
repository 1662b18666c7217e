"""OLMoE: Llama blocks with a norm over all query heads together, and experts. Reference: transformers olmoe."""

from lacewing.models.architecture import Architecture
from lacewing.models.names import EXPERT_NAMES, QK_NORM_NAMES, STANDARD_NAMES

ARCHITECTURE = Architecture(
    name="olmoe",
    models="OLMoE",
    names=STANDARD_NAMES | QK_NORM_NAMES | EXPERT_NAMES,
    switches={"whole_qk_norm": True},
    mixture={},
    defaults={
        "olmoe": {
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "max_position_embeddings": 4096,
            "vocab_size": 50304,
            "num_experts": 64,
            "num_experts_per_tok": 8,
        }
    },
)
