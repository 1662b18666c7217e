"""Phi 3, 3.5 and 4: fused q|k|v and gate|up, partial rotation, longrope. Reference: transformers phi3."""

from lacewing.models.architecture import Architecture
from lacewing.models.names import FUSED_NAMES, STANDARD_NAMES

ARCHITECTURE = Architecture(
    name="phi3",
    models="Phi 3, 3.5 and 4, Phi-4-mini",
    names=STANDARD_NAMES | FUSED_NAMES,
    huggingface_switches={"fused_qkv": True, "fused_gate_up": True},
    defaults={
        "phi3": {
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 4096,
            "vocab_size": 32064,
            "rope_kinds": {"su": "longrope", "yarn": "longrope"},  # older names
        }
    },
)
