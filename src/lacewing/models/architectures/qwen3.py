"""Qwen 3: Llama blocks with a norm on each query and key head. Reference: transformers qwen3."""

from lacewing.models.architecture import Architecture
from lacewing.models.architectures import qwen2
from lacewing.models.names import QK_NORM_NAMES, STANDARD_NAMES

ARCHITECTURE = Architecture(
    name="qwen3",
    models="Qwen 3",
    names=STANDARD_NAMES | QK_NORM_NAMES,
    switches={"qk_norm": True},
    defaults={"qwen3": qwen2.DEFAULTS | {"head_dim": 128}},
)
