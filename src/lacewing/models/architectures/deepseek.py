"""DeepSeekMoE, the first generation: Llama's attention, many small experts by a softmax that is not renormalised, shared ones.

References: the makers' modeling_deepseek.py; llama.cpp for what a GGUF file says.
"""

from lacewing.models.architecture import Architecture
from lacewing.models.names import EXPERT_NAMES, STANDARD_NAMES

ARCHITECTURE = Architecture(
    name="deepseek",
    models="DeepSeek-MoE-16B",
    names=STANDARD_NAMES | EXPERT_NAMES,
    mixture={},
    gguf_switches={"adjacent_rope": True},  # the converter permutes the rows of q and k
    defaults={
        "deepseek": {
            "rms_norm_eps": 1e-6,
            "hidden_act": "silu",
            "max_position_embeddings": 2048,
            "vocab_size": 102400,
            "n_routed_experts": 64,
            "moe_intermediate_size": 1407,
        }
    },
)
