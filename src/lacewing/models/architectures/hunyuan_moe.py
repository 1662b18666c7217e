"""Hunyuan-A13B of Tencent: Hunyuan's attention, experts and a shared one in every layer. Reference: transformers hunyuan_v1_moe."""

from dataclasses import replace

from lacewing.models.architectures import hunyuan_dense
from lacewing.models.config import ModelConfig
from lacewing.models.names import EXPERT_NAMES
from lacewing.models.readers.metadata import MetadataReader

NAMES = EXPERT_NAMES | {
    "mlp.gate.wg": "ffn_gate_inp",
    "mlp.shared_mlp.gate_proj": "ffn_gate_shexp",
    "mlp.shared_mlp.up_proj": "ffn_up_shexp",
    "mlp.shared_mlp.down_proj": "ffn_down_shexp",
}


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """Experts, and the shared one, are as wide as intermediate_size says."""
    for name, usual in (("num_shared_expert", 1), ("moe_intermediate_size", config.feed_forward)):
        if keys.integer(name, usual) != usual:
            raise keys.error(name, f"is not {usual}, which this version does not know")
    m = config.mixture
    return config if m is None else replace(config, mixture=replace(m, shared_width=config.feed_forward))


ARCHITECTURE = replace(
    hunyuan_dense.ARCHITECTURE,
    name="hunyuan-moe",
    models="Hunyuan-A13B",
    also=("hunyuan_v1_moe",),
    names=hunyuan_dense.NAMES | NAMES,
    synonyms={"num_experts_per_tok": "moe_topk"},
    mixture={"renormalise": True},
    defaults={"hunyuan_v1_moe": hunyuan_dense.DEFAULTS | {"num_experts": 1, "num_experts_per_tok": 1}},
    huggingface=huggingface,
)
