"""GLM-4 of 2024 and GLM-Edge: partial rotation of neighbours, a bias on q, k and v, gate and up in one weight.

References: transformers glm; llama.cpp for what a GGUF file says.
"""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.config import ModelConfig
from lacewing.models.names import FUSED_NAMES, STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader

DEFAULTS = {
    "rms_norm_eps": 1.5625e-7,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "vocab_size": 151552,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "partial_rotary_factor": 0.5,
    "attention_bias": True,
}


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """A bias on attention is one on q, k and v only."""
    return replace(config, biases=config.biases - {"attn_output"})


ARCHITECTURE = Architecture(
    name="chatglm",
    models="GLM-4-9B of 2024, GLM-Edge",
    also=("glm",),
    names=STANDARD_NAMES | {"mlp.gate_up_proj": FUSED_NAMES["mlp.gate_up_proj"]},
    switches={"adjacent_rope": True},
    huggingface_switches={"fused_gate_up": True},
    defaults={"glm": DEFAULTS},
    huggingface=huggingface,
)
