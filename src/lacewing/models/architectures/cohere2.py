"""Command R7B and Command A: Command R, three layers with a window and rotation, then one with neither.

References: transformers cohere2; llama.cpp for what a GGUF file says.
"""

from dataclasses import replace

from lacewing.models.architectures import command_r
from lacewing.models.config import ModelConfig
from lacewing.models.names import STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader

# keys of its files that say what all of them are, each with that
_FIXED = {"rotary_pct": 1, "layer_switch": 4, "use_gated_activation": True, "use_parallel_block": True, "use_qk_norm": False,
          "use_parallel_embedding": False, "use_embedding_sharing": True, "position_embedding_type": "rope_gptj",
          "order_of_interleaved_layers": "local_attn_first"}  # fmt: skip


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    for name, value in _FIXED.items():
        found = keys.get(name, value)
        if found != value:
            raise keys.error(name, f"is {found!r}; this version knows {value!r}")
    return _bare(replace(config, logits_scale=keys.number("logit_scale", 0.0625, low=1e-6, high=1e6)))


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    return _bare(command_r.gguf(keys, config))


def _bare(config: ModelConfig) -> ModelConfig:
    return replace(config, nope_layers=frozenset(layer for layer, window in enumerate(config.windows) if window is None))


ARCHITECTURE = replace(
    command_r.ARCHITECTURE,
    name="cohere2",
    models="Command R7B, Command A, Aya Vision (text)",
    also=(),
    names=STANDARD_NAMES,
    switches={"layer_norm": True, "parallel": True, "adjacent_rope": True},
    gguf_presence={},
    gguf_defaults={"attention.sliding_window_pattern": 4},
    defaults={"cohere2": command_r.DEFAULTS | {"sliding_window": 4096, "sliding_window_pattern": 4}},
    huggingface=huggingface,
    gguf=gguf,
)
