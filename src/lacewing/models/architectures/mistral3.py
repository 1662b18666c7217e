"""Mistral 3 as GGUF names it (Small 3.1 on, Ministral 3): Llama blocks, with a temperature by position where the file says so.

Reference: llama.cpp's loader; Ollama's convert/convert_mistral.go.
"""

from dataclasses import replace

from lacewing.models.architectures import llama
from lacewing.models.config import AttentionTemperatureConfig, ModelConfig
from lacewing.models.readers.metadata import MetadataReader


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """The temperature changes at each multiple of YaRN's original context."""
    beta = keys.number("attention.temperature_scale", 0, low=0, high=1e3)
    if not beta:
        return config
    return replace(config, attention_temperature=AttentionTemperatureConfig(beta, config.rope.original_context))


ARCHITECTURE = replace(
    llama.ARCHITECTURE,
    name="mistral3",
    also=(),
    models="Ministral 3, Devstral Small 2, Mistral Small 3.1 and 3.2 (text)",
    mixture=None,
    defaults={"mistral3": llama.ARCHITECTURE.defaults["mistral"]},
    gguf=gguf,
)
