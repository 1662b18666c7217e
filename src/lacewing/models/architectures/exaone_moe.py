"""K-EXAONE of LG: EXAONE 4's attention behind the usual norms, DeepSeek V3's experts. Reference: transformers exaone_moe."""

from lacewing.models.architecture import Architecture
from lacewing.models.architectures.exaone4 import DEFAULTS, without_global_rope
from lacewing.models.names import EXPERT_NAMES, QK_NORM_NAMES, STANDARD_NAMES

ARCHITECTURE = Architecture(
    name="exaone-moe",
    models="K-EXAONE-236B-A23B",
    names=STANDARD_NAMES | QK_NORM_NAMES | EXPERT_NAMES,
    synonyms={"n_shared_experts": "num_shared_experts"},
    switches={"qk_norm": True},
    mixture={"gating": "sigmoid", "bias": True},
    defaults={
        "exaone_moe": {
            **DEFAULTS,
            "num_experts": 64,
            "num_experts_per_tok": 8,
            "n_shared_experts": 1,
            "moe_intermediate_size": 1024,
            "first_k_dense_replace": 1,
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.5,
        }
    },
    gguf_defaults={"attention.sliding_window_pattern": 4},
    huggingface=without_global_rope,
    gguf=without_global_rope,
)
