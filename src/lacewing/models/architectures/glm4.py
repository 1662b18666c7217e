"""GLM-4-0414, dense: the blocks of GLM-4 with norms on what they give as well. Reference: transformers glm4."""

from dataclasses import replace

from lacewing.models.architectures import chatglm
from lacewing.models.config import ModelConfig
from lacewing.models.readers.metadata import MetadataReader

NAMES = {
    "post_self_attn_layernorm": "post_attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "post_mlp_layernorm": "post_ffw_norm",
}


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """Where positions have sections, as in GLM-4.1V, the converter has permuted q and k to halves."""
    sections = keys.get("rope.dimension_sections")
    if sections is None or not any(sections if isinstance(sections, list) else [sections]):
        return config
    return replace(config, adjacent_rope=False)


ARCHITECTURE = replace(
    chatglm.ARCHITECTURE,
    name="glm4",
    models="GLM-4-0414 (dense, 9B and 32B), GLM-Z1",
    also=(),
    names={**chatglm.ARCHITECTURE.names, **NAMES},
    switches={**chatglm.ARCHITECTURE.switches, "post_norms": True},
    defaults={"glm4": chatglm.DEFAULTS},
    gguf=gguf,
)
