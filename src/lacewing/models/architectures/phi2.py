"""Phi 1, 1.5 and 2: LayerNorm, parallel branches, no gate, a bias on everything, the output too. Reference: transformers phi."""

from lacewing.models.architecture import Architecture
from lacewing.models.architectures.starcoder2 import LINEARS
from lacewing.models.config import ModelConfig
from lacewing.models.names import STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader

NAMES = {
    "final_layernorm": "output_norm",
    "self_attn.dense": "attn_output",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    if keys.flag("qk_layernorm"):
        raise keys.error("qk_layernorm", "is true, which this version does not know")
    return config


ARCHITECTURE = Architecture(
    name="phi2",
    models="Phi 1, 1.5 and 2",
    also=("phi",),
    names=STANDARD_NAMES | NAMES,
    synonyms={"rms_norm_eps": "layer_norm_eps"},
    biases=LINEARS,
    switches={
        "layer_norm": True,
        "norm_biases": True,
        "parallel": True,
        "output_bias": True,
        "gated": False,
        "fused_gate_up": False,
    },
    gguf_switches={"activation": "gelu_tanh"},
    defaults={
        "phi": {
            "rms_norm_eps": 1e-5,
            "hidden_act": "gelu_new",
            "max_position_embeddings": 2048,
            "vocab_size": 51200,
            "partial_rotary_factor": 0.5,
        }
    },
    huggingface=huggingface,
)
