"""Granite's mixtures of experts, with or without shared ones. References: transformers granitemoe and granitemoeshared."""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.architectures import granite
from lacewing.models.config import ModelConfig
from lacewing.models.names import STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader

NAMES = {
    "block_sparse_moe.router": "ffn_gate_inp",
    "block_sparse_moe.router.layer": "ffn_gate_inp",  # as the makers store it
    "block_sparse_moe.experts.gate_up_proj": "ffn_gate_up_exps.weight",
    "block_sparse_moe.experts.down_proj": "ffn_down_exps.weight",
    "block_sparse_moe.input_linear": "ffn_gate_up_exps",
    "block_sparse_moe.output_linear": "ffn_down_exps",
    "shared_mlp.input_linear": "ffn_up_shexp",
    "shared_mlp.output_linear": "ffn_down_shexp",
}


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """The experts have the width that others call the model's own; gate and up of the shared ones are one weight."""
    width = keys.integer("shared_intermediate_size", 0, low=0)
    if config.mixture is not None:
        config = replace(config, mixture=replace(config.mixture, shared_width=width, fused_shared=width > 0))
    return granite.huggingface(keys, config)


DEFAULTS = granite.DEFAULTS | {"num_local_experts": 8, "num_experts_per_tok": 2}

ARCHITECTURE = Architecture(
    name="granitemoe",
    models="Granite 3.x with experts, PowerMoE",
    also=("granitemoeshared",),
    names=STANDARD_NAMES | NAMES,
    mixture={"renormalise": True},
    gguf_switches={"adjacent_rope": True},
    defaults={"granitemoe": DEFAULTS, "granitemoeshared": DEFAULTS},
    huggingface=huggingface,
    gguf=granite.gguf,
)
