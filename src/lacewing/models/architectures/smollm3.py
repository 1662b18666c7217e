"""SmolLM3: Llama blocks, every fourth layer without rotation. References: transformers smollm3; llama.cpp for GGUF."""

from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.config import ModelConfig
from lacewing.models.readers.metadata import MetadataReader

INTERVAL = 4


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """Without a list of kinds, windows are those of the layers without rotation."""
    interval, windows = keys.integer("no_rope_layer_interval", INTERVAL), config.windows
    if keys.get("no_rope_layers") is None:
        bare = _every(config.layers, interval)
    else:
        flags = keys.flags("no_rope_layers", config.layers)  # 1: with rotation
        bare = frozenset(layer for layer, rotated in enumerate(flags) if not rotated)
    if keys.get("layer_types") is None:
        windows = tuple(window if layer in bare else None for layer, window in enumerate(windows))
    return replace(config, nope_layers=bare, windows=windows)


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    return replace(config, nope_layers=_every(config.layers, INTERVAL))


def _every(layers: int, interval: int) -> frozenset[int]:
    return frozenset(range(interval - 1, layers, interval))


ARCHITECTURE = Architecture(
    name="smollm3",
    models="SmolLM3",
    gguf_switches={"adjacent_rope": True},  # the converter permutes the rows of q and k
    defaults={
        "smollm3": {
            "rms_norm_eps": 1e-6,
            "hidden_act": "silu",
            "max_position_embeddings": 32768,
            "vocab_size": 128256,
            "num_key_value_heads": 4,
            "rope_theta": 2e6,
            "use_sliding_window": False,
            "tie_word_embeddings": True,
        }
    },
    huggingface=huggingface,
    gguf=gguf,
)
