"""Qwen3-Next: gated delta nets in three of four layers, gated attention in the fourth, many small experts, one shared.

Reference: transformers qwen3_next.
"""

from functools import partial

from lacewing.models.architecture import Architecture
from lacewing.models.blocks.delta import hybrid_block
from lacewing.models.readers.delta import DEFAULTS, GGUF_NAMES, NAMES, SWITCHES, gguf_delta, huggingface_delta

ARCHITECTURE = Architecture(
    name="qwen3next",
    models="Qwen3-Next, Qwen3-Coder-Next",
    also=("qwen3_next",),
    names=NAMES,
    switches=SWITCHES,
    huggingface_switches={"norm_offset": 1.0},
    gguf_names=GGUF_NAMES,
    gguf_presence={"fused_delta": "blk.*.ssm_in.weight"},
    gguf_defaults={"expert_weights_norm": True},
    hybrid=True,
    mixture={"shared_gate": True},
    block=hybrid_block,
    defaults={
        "qwen3_next": {
            **DEFAULTS,
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_hidden_layers": 48,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "moe_intermediate_size": 512,
            "shared_expert_intermediate_size": 512,
            "num_experts": 512,
            "num_experts_per_tok": 10,
            "norm_topk_prob": True,
        }
    },
    huggingface=partial(huggingface_delta, joint=True),
    gguf=partial(gguf_delta, tiled=False),
)
