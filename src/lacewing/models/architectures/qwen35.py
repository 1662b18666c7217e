"""Qwen 3.5 and later, dense: gated delta nets in three of four layers, gated attention in the fourth.

Reference: transformers qwen3_5. Its interleaved rotation by three positions is the plain one for text, whose positions are equal.
"""

from functools import partial

from lacewing.models.architecture import Architecture
from lacewing.models.blocks.delta import hybrid_block
from lacewing.models.readers import delta

DEFAULTS = {
    **delta.DEFAULTS,
    "vocab_size": 248320,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
}

ARCHITECTURE = Architecture(
    name="qwen35",
    models="Qwen 3.5, 3.6 and 3.7 without experts (text)",
    also=("qwen3_5", "qwen3_5_text"),
    names=delta.NAMES,
    switches=delta.SWITCHES,
    huggingface_switches={"norm_offset": 1.0},
    gguf_names=delta.GGUF_NAMES,
    hybrid=True,
    block=hybrid_block,
    defaults=dict.fromkeys(("qwen3_5", "qwen3_5_text"), DEFAULTS),
    huggingface=partial(delta.huggingface_delta, joint=False),
    gguf=partial(delta.gguf_delta, tiled=True),
)
