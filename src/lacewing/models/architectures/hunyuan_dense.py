"""Hunyuan 0.5B to 7B of Tencent: Llama blocks with a norm on each query and key head after RoPE.

Reference: transformers hunyuan_v1_dense.
"""

from typing import Any

from lacewing.models.architecture import Architecture
from lacewing.models.names import STANDARD_NAMES

NAMES = STANDARD_NAMES | {"self_attn.query_layernorm": "attn_q_norm", "self_attn.key_layernorm": "attn_k_norm"}
DEFAULTS: dict[str, Any] = {
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "vocab_size": 290943,
    "rope_alpha": True,  # rope scaling that is called dynamic may be a larger base: alpha^(C / (C - 2)) times the plain one
}

ARCHITECTURE = Architecture(
    name="hunyuan-dense",
    models="Hunyuan 0.5B, 1.8B, 4B and 7B, Hunyuan-MT",
    also=("hunyuan_v1_dense",),
    names=NAMES,
    switches={"qk_norm": True, "late_qk_norm": True},
    defaults={"hunyuan_v1_dense": DEFAULTS},
)
