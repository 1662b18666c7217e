"""GLM 4.5, 4.6 and 4.7: partial rotation, a bias on q, k and v, sigmoid routing. Reference: transformers glm4_moe."""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.config import ModelConfig
from lacewing.models.names import EXPERT_NAMES, QK_NORM_NAMES, STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """A bias on attention is one on q, k and v only; the norm of heads is the large model's."""
    return replace(config, biases=config.biases - {"attn_output"}, qk_norm=keys.flag("use_qk_norm"))


ARCHITECTURE = Architecture(
    name="glm4moe",
    models="GLM-4.5, 4.5-Air, 4.6 and 4.7",
    also=("glm4_moe",),
    names=STANDARD_NAMES | QK_NORM_NAMES | EXPERT_NAMES | {"post_attention_layernorm": "post_attention_norm"},
    switches={"feed_forward_norm": "post_attention_norm"},
    mixture={},
    uncounted=("token_embd.weight", "output.weight"),
    gguf_defaults={"expert_gating_func": 2},
    gguf_presence={"qk_norm": "blk.0.attn_q_norm.weight"},
    defaults={
        "glm4_moe": {
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "max_position_embeddings": 131072,
            "vocab_size": 151552,
            "num_key_value_heads": 8,
            "partial_rotary_factor": 0.5,
            "moe_intermediate_size": 1408,
            "num_experts_per_tok": 8,
            "n_shared_experts": 1,
            "n_routed_experts": 128,
            "first_k_dense_replace": 1,
            "norm_topk_prob": True,
            "topk_method": "noaux_tc",
            "scoring_func": "sigmoid",
            "num_nextn_predict_layers": 1,
        }
    },
    huggingface=huggingface,
)
