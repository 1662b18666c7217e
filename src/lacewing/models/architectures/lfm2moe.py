"""LFM2 and LFM2.5 with experts: LFM2's layers, a sigmoid router with a bias behind a few dense ones.

Reference: transformers lfm2_moe.
"""

from dataclasses import replace

from lacewing.models.architectures import lfm2
from lacewing.models.config import ModelConfig
from lacewing.models.readers.metadata import MetadataReader

NAMES = {
    "feed_forward.gate": "ffn_gate_inp",
    "feed_forward.experts.*.w1": "ffn_gate_exps.*",
    "feed_forward.experts.*.w3": "ffn_up_exps.*",
    "feed_forward.experts.*.w2": "ffn_down_exps.*",
    "feed_forward.expert_bias": "exp_probs_b.bias",
}


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """The width of dense layers is as it is named."""
    m, width = config.mixture, keys.integer("intermediate_size")
    if m is not None:
        m = replace(m, bias=keys.flag("use_expert_bias", True))
    return replace(lfm2.huggingface(keys, config), mixture=m, feed_forward=width)


ARCHITECTURE = replace(
    lfm2.ARCHITECTURE,
    name="lfm2moe",
    models="LFM2-8B-A1B and LFM2-24B-A2B, LFM2.5 of these sizes",
    also=("lfm2_moe",),
    names={**lfm2.ARCHITECTURE.names, **NAMES},
    synonyms={"first_k_dense_replace": "num_dense_layers", "rms_norm_eps": "norm_eps"},
    mixture={"gating": "sigmoid"},
    gguf_defaults={"expert_weights_norm": True},
    defaults={
        "lfm2_moe": {
            **lfm2.ARCHITECTURE.defaults["lfm2"],
            "hidden_size": 2048,
            "intermediate_size": 7168,
            "moe_intermediate_size": 1792,
            "first_k_dense_replace": 2,
            "num_experts": 32,
            "num_experts_per_tok": 4,
            "norm_topk_prob": True,
        }
    },
    huggingface=huggingface,
)
