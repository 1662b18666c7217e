"""Gemma 3: Gemma 2 with head norms instead of soft-caps, 5 windowed layers to 1, two rope bases. Reference: transformers gemma3."""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.architectures import gemma, gemma2
from lacewing.models.config import ModelConfig
from lacewing.models.names import POST_NORM_NAMES, QK_NORM_NAMES, STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    softcaps = gemma2.softcaps(keys, gemma.scaled(keys, config), "attn_logit_softcapping", "final_logit_softcapping")
    config = _as_ollama_means(keys, softcaps) if _is_of_ollama(keys) else softcaps
    if config.layers == 62:  # 27B, the one model whose scale is not that of its heads; the file does not say it
        config = replace(config, attention_scale=(config.width / config.heads) ** -0.5)
    return config


def _is_of_ollama(keys: MetadataReader) -> bool:
    own = ("rope.local.freq_base", "rope.global.freq_base", "mm_tokens_per_image")
    return "attention.layer_norm_rms_epsilon" not in keys or any(
        name in own or name.startswith(("vision.", "mm.")) for name in keys.names()
    )


def _as_ollama_means(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """What its files leave out or say wrongly: linear scaling of the large models, YaRN's magnitude, no soft-cap in the one of 1B.

    Reference: Ollama's model/models/gemma3 and llama/compat.
    """
    scaled = any(name in keys for name in ("rope.scaling.type", "rope.scaling.factor", "rope.scale_linear"))
    if config.trained_context >= 131072 and not scaled:
        config = replace(config, rope=replace(config.rope, kind="linear", factor=8.0))
    if config.rope.kind == "yarn":
        config = replace(config, rope=replace(config.rope, magnitude=1.0))
    if config.layers == 26 and any(window is not None and window < config.trained_context for window in config.windows):
        config = replace(config, final_softcap=None)
    return config


DEFAULTS = gemma.DEFAULTS | {
    "max_position_embeddings": 131072,
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
    "rope_theta": 1e6,
    "rope_local_base_freq": 1e4,
}

ARCHITECTURE = Architecture(
    name="gemma3",
    models="Gemma 3 (text)",
    also=("gemma3_text",),
    names=STANDARD_NAMES | POST_NORM_NAMES | QK_NORM_NAMES,
    switches={"post_norms": True, "qk_norm": True},
    huggingface_switches={"norm_offset": 1.0},
    gguf_switches={"activation": "gelu_tanh"},
    defaults={"gemma3_text": DEFAULTS, "gemma3": DEFAULTS},
    gguf_defaults={
        "attention.layer_norm_rms_epsilon": 1e-6,
        "attention.sliding_window_pattern": 6,
        "rope.freq_base_swa": 1e4,
        "rope.freq_base": 1e6,
    },
    huggingface=gemma2.huggingface,
    gguf=gguf,
)
